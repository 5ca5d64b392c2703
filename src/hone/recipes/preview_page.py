"""A preview as one self-contained page: no script, no remote asset, every text escaped. It knows no files."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from hone.data.example import Example
from hone.data.road import RoadRow
from hone.recipes.preview import Piece, Preview, Run

_FOLDED_FROM: Final = 160  # pieces of context
_SHOWN_BEFORE: Final = 60
_SHOWN_AFTER: Final = 30

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #ffffff; --ink: #23272e; --dim: #7b828d;
  --line: #e4e2dc; --trained: #d3f2dd; --trained-edge: #1b8a4b; --trained-ink: #0d4a28; --cut: #fbdcd8;
  --cut-ink: #a3261a; --mark: #eef0f4; --mark-ink: #5a6472; --warn: #fff4d6; --warn-ink: #7a5600; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181d; --card: #1c2026; --ink: #dfe3ea;
  --dim: #8b93a1; --line: #2e343d; --trained: #123a26; --trained-edge: #35b56c; --trained-ink: #b6f0cd;
  --cut: #45201c; --cut-ink: #ff9d91; --mark: #2a303a; --mark-ink: #9aa5b5; --warn: #3b3115;
  --warn-ink: #f2d488; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 20px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 15px; margin: 0; overflow-wrap: anywhere; }
.dim { color: var(--dim); }
.facts { display: flex; flex-wrap: wrap; gap: 10px; margin: 20px 0 8px; padding: 0; list-style: none; }
.facts li { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 8px 16px; min-width: 108px; }
.facts b { display: block; font-size: 19px; font-variant-numeric: tabular-nums; }
.facts span { color: var(--dim); font-size: 12.5px; }
.legend { position: sticky; top: 0; z-index: 1; background: var(--paper); padding: 10px 0;
  border-bottom: 1px solid var(--line); font-size: 13px; }
.legend > span { margin-right: 14px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; margin-top: 20px;
  overflow: hidden; }
.card > header { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 4px 18px;
  padding: 12px 18px; border-bottom: 1px solid var(--line); font-size: 13.5px; }
.share { height: 3px; background: var(--mark); }
.share i { display: block; height: 3px; background: var(--trained-edge); }
.text { margin: 0; padding: 16px 18px; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.75 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.text span { border-radius: 2px; }
.context { color: var(--dim); }
.trained { background: var(--trained); color: var(--trained-ink); padding: 2px 0;
  box-shadow: inset 0 -2px var(--trained-edge); -webkit-box-decoration-break: clone;
  box-decoration-break: clone; }
.trained span:nth-child(even) { background: color-mix(in srgb, var(--trained-edge) 14%, transparent); }
.cut { background: var(--cut); color: var(--cut-ink); text-decoration: line-through; }
.text span:hover { outline: 1.5px solid var(--ink); outline-offset: 0; }
.control { background: var(--mark); color: var(--mark-ink); border-radius: 4px; padding: 0 4px;
  font-size: 11.5px; }
.trained .control:nth-child(n) { background: var(--trained-edge); color: var(--card); }
.card .notice { margin: 12px 18px 0; }
.weight { background: var(--warn); color: var(--warn-ink); border-radius: 4px; padding: 0 4px;
  font-size: 11.5px; margin-left: 4px; }
.end { opacity: .45; user-select: none; }
details { display: inline; }
summary { display: inline-block; cursor: pointer; color: var(--mark-ink); background: var(--mark);
  border-radius: 999px; padding: 0 12px; margin: 2px 6px; font: 12px/1.7 system-ui, sans-serif; }
.notice { background: var(--warn); color: var(--warn-ink); border-radius: 10px; padding: 10px 16px;
  margin-top: 12px; font-size: 13.5px; overflow-wrap: anywhere; }
"""


def page(seen: Preview) -> str:
    """The page as HTML."""
    return "".join(_parts(seen))


def _parts(seen: Preview) -> Iterator[str]:
    ledger = seen.ledger
    title = escape(f"{ledger.file}: what is trained")
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>\n"
        f"<h1>{escape(ledger.file)}</h1>\n"
        f'<div class="dim">shape <b>{escape(ledger.shape)}</b>, chat template: {escape(seen.template)}, '
        f"length limit: {escape(seen.limit())}</div>\n"
    )
    facts = {
        "rows shown": f"{ledger.read:,}",
        "Examples": f"{ledger.examples:,}",
        "tokens": f"{ledger.tokens:,}",
        "trained tokens": f"{ledger.trained_tokens:,}",
        "trained": f"{ledger.trained_tokens / max(1, ledger.tokens):.1%}",
    }
    listed = "".join(f"<li><b>{value}</b><span>{name}</span></li>" for name, value in facts.items())
    yield f'<ul class="facts">{listed}</ul>\n'
    yield (
        '<div class="legend"><span class="trained">trained</span> <span class="context">context</span> '
        '<span class="cut">cut</span> <span class="control">control token</span> '
        '<span class="dim">point at a token for its place, id and weight</span></div>\n'
    )
    for notice in seen.notices:
        yield f'<div class="notice">{escape(notice)}</div>\n'
    for row in seen.rows:
        yield from _cards(seen, row)
    yield "</main></body></html>\n"


def _cards(seen: Preview, row: RoadRow) -> Iterator[str]:
    name = escape(str(row.origin))
    dropped = f"not trained: {row.dropped}" if row.dropped else ""
    if not row.uncut:
        yield f'<section class="card"><header><h2>{name}</h2></header>'
        yield f'<div class="notice">{escape(dropped)}</div></section>\n'
    for number, example in enumerate(row.uncut):
        many = f", Example {number + 1} of {len(row.uncut)}" if len(row.uncut) > 1 else ""
        share = example.num_trained_tokens / max(1, example.num_tokens)
        state = dropped or seen.remark(row, example)
        yield (
            f'<section class="card"><header><h2>{name}{many}</h2><span class="dim">'
            f"{example.num_tokens:,} tokens, {example.num_trained_tokens:,} trained ({share:.1%})"
            f'</span></header><div class="share"><i style="width:{100 * share:.2f}%"></i></div>\n'
        )
        if state:
            yield f'<div class="notice">{escape(state)}</div>'
        runs = "".join(_run(seen, example, run) for run in seen.runs(row, number))
        yield f'<div class="text">{runs}</div></section>\n'


def _run(seen: Preview, example: Example, run: Run) -> str:
    """One run; of a long context the middle is folded away, as plain text."""
    look = "cut" if run.is_cut else "trained" if run.is_trained else "context"
    spans = [(run.start, run.stop)]
    if look != "trained" and run.stop - run.start >= _FOLDED_FROM:
        spans = [(run.start, run.start + _SHOWN_BEFORE), (run.stop - _SHOWN_AFTER, run.stop)]
    shown = ["".join(_token(seen, piece, run) for piece in seen.pieces(example, *s)) for s in spans]
    fold = ""
    if len(spans) > 1:
        inner = seen.text(example, spans[0][1], spans[1][0])
        count = spans[1][0] - spans[0][1]
        fold = f"<details><summary>{count:,} more</summary>{escape(_visible(inner))}</details>"
    note = f'<span class="weight">weight {run.weight:g}</span>' if run.weight not in (0, 1) else ""
    return f'<span class="{look}">{fold.join(shown)}</span>{note}'


def _token(seen: Preview, piece: Piece, run: Run) -> str:
    ids = ", ".join(map(str, piece.ids))
    fate = "cut" if run.is_cut else f"weight {run.weight:g}" if run.weight else "context"
    control = ' class="control"' if seen.is_control(piece.ids[0]) else ""
    text = escape(_visible(piece.text)).replace("\n", '<i class="end">↵</i>\n')
    return f'<span{control} title="token {piece.start}, id {ids}, {fate}">{text}</span>'


def _visible(text: str) -> str:
    """Characters that a page does not show, or that turn its direction, spelled out."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1]
        for letter in text
    )
