"""An evaluation as one self-contained page: no script, no remote asset, every text of the user's escaped. No files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from hone.recipes.evaluation import plot
from hone.recipes.evaluation.answer import Answer
from hone.recipes.evaluation.bootstrap import Interval
from hone.recipes.evaluation.players import BASE, TUNED
from hone.recipes.evaluation.result import Sample, Taken

_SHOWN: Final = 1500  # characters of a text; the rest is folded away

_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #ffffff; --ink: #23272e; --dim: #6c7480;
  --line: #e4e2dc; --tuned: #1b8a4b; --base: #8a6fd1; --good: #1b8a4b; --bad: #b3372b; --even: #8b93a1;
  --wanted: #d3f2dd; --wanted-ink: #0d4a28; --warn: #fff4d6; --warn-ink: #7a5600; --mark: #eef0f4; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181d; --card: #1c2026; --ink: #dfe3ea;
  --dim: #98a1ae; --line: #2e343d; --tuned: #35b56c; --base: #a58bf0; --good: #35b56c; --bad: #ff8f83;
  --wanted: #123a26; --wanted-ink: #b6f0cd; --warn: #3b3115; --warn-ink: #f2d488; --mark: #2a303a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 20px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 32px 0 8px; }
h3 { font-size: 14px; margin: 0; overflow-wrap: anywhere; }
.dim { color: var(--dim); font-size: 13px; overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: 10px; margin: 20px 0 8px; padding: 0; list-style: none; }
.facts li { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 8px 16px; min-width: 108px; }
.facts b { display: block; font-size: 19px; font-variant-numeric: tabular-nums; }
.facts span { color: var(--dim); font-size: 12.5px; }
.notice { background: var(--warn); color: var(--warn-ink); border-radius: 10px; padding: 10px 16px;
  margin-top: 10px; font-size: 13.5px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 14px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
th { color: var(--dim); font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
.better { color: var(--good); font-weight: 600; }
.worse { color: var(--bad); font-weight: 600; }
.plot { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--dim); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--line); } .axis { stroke: var(--even); }
.bar { stroke-width: 3; stroke-linecap: round; }
.bar.tuned { stroke: var(--tuned); } .bar.base { stroke: var(--base); }
.bar.good { stroke: var(--good); } .bar.bad { stroke: var(--bad); } .bar.even { stroke: var(--even); }
.dot.tuned { fill: var(--tuned); } .dot.base { fill: var(--base); }
.dot.good { fill: var(--good); } .dot.bad { fill: var(--bad); } .dot.even { fill: var(--even); }
.fill { fill-opacity: .55; } .fill.tuned { fill: var(--tuned); } .fill.base { fill: var(--base); }
.key b { font-weight: 600; } .key .tuned { color: var(--tuned); } .key .base { color: var(--base); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; margin-top: 16px;
  overflow: hidden; }
.card > header { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 4px 18px;
  padding: 12px 18px; border-bottom: 1px solid var(--line); font-size: 13.5px; }
.part { display: grid; grid-template-columns: 92px 1fr; gap: 12px; padding: 10px 18px; }
.part + .part { border-top: 1px solid var(--line); }
.part > span { color: var(--dim); font-size: 12.5px; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0;
  font: 13px/1.6 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.wanted { background: var(--wanted); color: var(--wanted-ink); border-radius: 6px; padding: 2px 8px; }
.role { color: var(--dim); }
summary { cursor: pointer; color: var(--dim); font-size: 12.5px; }
dl { font-size: 13.5px; } dt { font-weight: 600; } dd { margin: 0 0 8px; color: var(--dim); }
"""


@dataclass(frozen=True)
class Report:
    """What the page shows. `facts` and `notices` are words; `taken` is of all rows, `by_source` of each source."""

    title: str
    subtitle: str
    facts: Mapping[str, str]
    taken: Sequence[Taken]
    by_source: Mapping[str, Sequence[Taken]]
    row_losses: Mapping[str, Sequence[float]]
    misses: Sequence[Sample]
    missed: int
    notices: Sequence[str]
    left_out: Mapping[str, str]
    how: str
    tasks: Mapping[str, Mapping[str, float]]
    """Numbers of the harness: by model, then by task and metric."""


def page(report: Report) -> str:
    """The page as HTML."""
    return "".join(_parts(report))


def number(value: float | None) -> str:
    """A measure's number; a dash where there is none."""
    if value is None:
        return "–"
    size = abs(value)
    if size >= 100_000:
        return f"{value:.3g}"
    return f"{value:,.1f}" if size >= 100 else f"{value:.2f}" if size >= 10 else f"{value:.4f}"


def _parts(report: Report) -> Iterator[str]:
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body><main>\n"
        f'<h1>{escape(report.title)}</h1>\n<div class="dim">{escape(report.subtitle)}</div>\n'
    )
    listed = "".join(
        f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>"
        for name, value in report.facts.items()
    )
    yield f'<ul class="facts">{listed}</ul>\n'
    for notice in report.notices:
        yield f'<div class="notice">{escape(_visible(notice))}</div>\n'
    if report.taken:
        yield "<h2>Measures</h2>\n" + _table(report.taken)
    yield from _plots(report)
    for source, taken in report.by_source.items():
        yield f"<h2>{escape(_visible(source))}</h2>\n" + _table(taken)
    yield from _tasks(report.tasks)
    yield from _misses(report)
    yield from _method(report)
    yield "</main></body></html>\n"


def _table(taken: Sequence[Taken]) -> str:
    pairs = any(one.base is not None for one in taken)
    head = ["measure", "tuned", *(["base", "tuned − base", ""] if pairs else []), "n"]
    rows: list[str] = []
    for one in taken:
        cells = [escape(one.name), _shown(one.tuned)]
        if pairs:
            look = one.verdict if one.verdict in ("better", "worse") else ""
            cells += [_shown(one.base), _shown(one.difference)]
            cells += [f'<span class="{look}">{one.verdict}</span>']
        cells.append(f"{one.questions:,}")
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f"<th>{name}</th>" for name in head)
    return f'<div class="wide"><table><tr>{heads}</tr>{"".join(rows)}</table></div>\n'


def _shown(one: Interval | None) -> str:
    if one is None or one.value is None:
        return "–"
    between = (
        ""
        if one.low is None
        else f' <span class="dim">{number(one.low)} to {number(one.high)}</span>'
    )
    return f"<b>{number(one.value)}</b>{between}"


def _plots(report: Report) -> Iterator[str]:
    key = (
        '<div class="dim key"><b class="tuned">● tuned</b> &nbsp; <b class="base">● base</b></div>'
    )
    key = key if any(one.base is not None for one in report.taken) else ""
    drawn = {
        "Scores, as shares of the best": plot.scores(report.taken)
        and key + plot.scores(report.taken),
        "Tuned − base, each on its own scale": plot.differences(report.taken),
        "Rows by their loss": plot.histogram(report.row_losses)
        and key + plot.histogram(report.row_losses),
    }
    for title, svg in drawn.items():
        if svg:
            yield f'<h2>{escape(title)}</h2>\n<div class="plot">{svg}</div>\n'


def _tasks(tasks: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for one in tasks.values() for name in one))
    if not names:
        return
    heads = "".join(f"<th>{escape(one)}</th>" for one in tasks)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{number(one.get(name))}</td>" for one in tasks.values())
        + "</tr>"
        for name in names
    )
    yield f'<h2>Tasks of lm-eval</h2>\n<div class="wide"><table><tr><th>task</th>{heads}</tr>{rows}</table></div>\n'


def _misses(report: Report) -> Iterator[str]:
    if not report.missed:
        return
    yield (
        f'<h2>Misses</h2>\n<div class="dim">{report.missed:,} answers miss something; the worst '
        f"{len(report.misses):,} are here, and all stand in samples.jsonl.</div>\n"
    )
    for sample in report.misses:
        question = sample.question
        scores = ", ".join(
            f"{name} {number(score)}" for name, score in sample.scores[TUNED].items()
        )
        turn = f", message {question.turn + 1}"
        yield (
            f'<section class="card"><header><h3>{escape(_visible(question.row))}{turn}</h3>'
            f'<span class="dim">{escape(scores)}</span></header>'
        )
        yield _part("prompt", _conversation(sample))
        calls = [{"name": c.name, "arguments": c.arguments} for c in question.reference.calls]
        yield _part("reference", _text(question.reference.text, calls, "wanted"))
        for name, answer in sample.answers.items():
            yield _part(name, _answer(answer))
        yield "</section>\n"


def _conversation(sample: Sample) -> str:
    *before, last = sample.question.messages
    shown = _message(last.role, last.content)
    if before:
        inner = "".join(_message(one.role, one.content) for one in before)
        shown = (
            f"<details><summary>{len(before):,} messages before</summary>{inner}</details>{shown}"
        )
    return shown


def _message(role: str, content: str) -> str:
    return f'<div class="text"><span class="role">{escape(role)}:</span> {_folded(content)}</div>'


def _answer(answer: Answer) -> str:
    calls = [{"name": one.name, "arguments": dict(one.arguments)} for one in answer.calls]
    cut = '<div class="dim">cut at the limit of tokens</div>' if answer.finish == "length" else ""
    thought = ""
    if answer.reasoning:
        thought = f'<details><summary>reasoning</summary><div class="text">{_folded(answer.reasoning)}</div></details>'
    return thought + _text(answer.text, calls, "") + cut


def _text(text: str, calls: Sequence[Mapping[str, Any]], look: str) -> str:
    written = [text] if text else []
    written += [json.dumps(one, ensure_ascii=False) for one in calls]
    if not written:
        return '<div class="dim">(empty)</div>'
    return f'<div class="text"><span class="{look}">{_folded(chr(10).join(written))}</span></div>'


def _folded(text: str) -> str:
    if len(text) <= _SHOWN:
        return escape(_visible(text))
    rest = f"<details><summary>{len(text) - _SHOWN:,} more characters</summary>{escape(_visible(text[_SHOWN:]))}</details>"
    return escape(_visible(text[:_SHOWN])) + rest


def _part(name: str, inner: str) -> str:
    return f'<div class="part"><span>{escape(name)}</span><div>{inner}</div></div>'


def _method(report: Report) -> Iterator[str]:
    listed = "".join(
        f"<dt>{escape(one.name)}</dt><dd>{escape(one.about)}</dd>" for one in report.taken
    )
    yield f'<h2>How it was measured</h2>\n<dl>{listed}</dl><div class="dim">{escape(report.how)}</div>\n'
    if report.left_out:
        listed = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(_visible(why))}</dd>"
            for name, why in report.left_out.items()
        )
        yield f"<h2>Left out</h2>\n<dl>{listed}</dl>\n"


def _visible(text: str) -> str:
    """Characters that a page does not show, or that turn its direction, spelled out."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1]
        for letter in text
    )


assert {TUNED, BASE} == {"tuned", "base"}, "the style knows them by these names"
