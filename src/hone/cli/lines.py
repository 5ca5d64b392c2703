"""Events and numbers in words, one line each. It knows no terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hone.cli.printable import printable
from hone.cli.progress import Progress
from hone.runs.events import Event
from hone.runs.metrics import loss_by_source

_SAMPLE_LINES = 6  # of a prompt and of a reply
_COLUMNS = 200  # and of each of their lines

_WORTH_SAYING = 0.005  # a share that rounds to more than nothing
PHASES: Mapping[str, str] = {
    "reading": "reading the rows",
    "loading": "loading the model",
    "rehearsal": "rehearsing the largest Pack",
    "training": "training",
    "evaluating": "evaluating on held-out rows",
    "saving": "saving",
    "tracking": "waiting for the trackers to send what is left",
}


def describe(event: Event) -> str | None:
    """The line for an event; None for those that only move the progress (`step`) or repeat an error."""
    match event.name:
        case "phase":
            return PHASES.get(str(event["name"]), str(event["name"]))
        case "notice":
            return f"note: {event['message']}"
        case "data":
            return _data(event)
        case "started":
            return f"run folder: {event.get('folder')}"
        case "plan":
            return _plan(event)
        case "ranks":
            count = int(event["ranks"])
            return f"{count} {'rank' if count == 1 else 'ranks'} ({event['strategy']})"
        case "engine":
            return _engine(event)
        case "compiled":
            return f"step {event['step']}: compiled on the way ({event['graphs']} more graphs)"
        case "rehearsed":
            return f"Packs of at most {event['micro_batch_tokens']:,} tokens: {event.get('reason')}"
        case "forecast":
            return f"the run takes about {duration_text(float(event['seconds']))}"
        case "resumed":
            return f"resumed after step {event['step']}"
        case "evaluated":
            rows = event.get("rows")
            by = by_source_text(loss_by_source([event.fields]))
            loss = f"{loss_text(event['loss'])} ({rows} rows)"
            return f"step {event['step']}: held-out loss {loss}{f': {by}' if by else ''}"
        case "sample":
            return "\n".join([f"step {event['step']}: samples", *sample_lines(event["samples"])])
        case "measured":
            return f"matrix products: {flops_text(event['product_flops_per_second'])} here"
        case "tracking":
            return f"{event['tracker']}: {event['place']}"
        case "saved":
            return f"step {event['step']}: saved {event.get('path')}"
        case "halved":
            tokens = event["micro_batch_tokens"]
            return f"step {event['step']}: memory ran out; from here Packs of at most {tokens:,} tokens"
        case "stopped":
            return f"stopped after step {event['step']} ({event.get('signal')})"
        case "finished":
            return _finished(event)
        case _:
            return None


def _data(event: Event) -> str:
    text = str(event.get("summary") or f"{event['rows']:,} rows")
    tokens, trained = int(event["tokens"]), int(event["trained_tokens"])
    share = f" ({trained / tokens:.0%})" if tokens else ""
    text += f"; {tokens:,} tokens, {trained:,} trained{share}"
    return f"{event['file']}: {text}" if event.get("file") else text


def _plan(event: Event) -> str:
    about = "" if event.get("exact") else "about "
    tokens, computed = int(event["tokens"]), int(event["computed_tokens"])
    text = f"plan: {event['steps']:,} steps, {about}{tokens:,} tokens"
    saved = 1 - computed / tokens if tokens else 0.0
    text += f" ({saved:.0%} saved by sharing)" if saved >= _WORTH_SAYING else ""
    peak, free = bytes_text(int(event["peak_bytes"])), bytes_text(int(event["free_bytes"]))
    text += f"; {peak} of {free} free at the fullest"
    if event.get("ranks", 1) > 1:
        text += f", in each of {event['ranks']} ranks ({event['strategy']})"
    seconds = event.get("seconds")
    return text if seconds is None else f"{text}; about {duration_text(float(seconds))}"


def _engine(event: Event) -> str:
    """`on Tesla X: bf16, flash attention; off: compile (not asked for)`."""
    off = "; ".join(f"{part['what']} ({part['why']})" for part in event.get("off") or ())
    return f"on {event['device']}: {', '.join(event['on'])}" + (f"; off: {off}" if off else "")


def _finished(event: Event) -> str:
    held_out = event.get("validation_loss")
    also = "" if held_out is None else f", best held-out loss {loss_text(held_out)}"
    seconds = duration_text(float(event["seconds"]))
    return f"finished: {event['steps']} steps, loss {loss_text(event['loss'])}{also}, {seconds}"


def step_line(progress: Progress) -> str:
    """Where the run stands, in one line."""
    parts = [f"step {progress.step}/{progress.steps}", *figures(progress), *time_left(progress)]
    by = by_source_text(progress.loss_by_source)
    return "  ".join([*parts, f"by source: {by}"] if by else parts)


def sample_lines(samples: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each prompt with what was written after it, and what the row says there; long texts are cut."""
    lines: list[str] = []
    for one in samples:
        lines.append(f"  {one['name']}" if one.get("name") else "  -")
        lines += _told("asked", one["prompt"], from_end=True)
        lines += _told("reply", one["reply"])
        if one.get("wanted") is not None:
            lines += _told("wanted", one["wanted"])
    return lines


def _told(title: str, text: str, *, from_end: bool = False) -> list[str]:
    """A text under its title; its end where the beginning says nothing (a prompt's), else its beginning."""
    lines = [printable(line) for line in str(text).strip().split("\n")]
    kept = lines[-_SAMPLE_LINES:] if from_end else lines[:_SAMPLE_LINES]
    if from_end:
        kept = [line if len(line) <= _COLUMNS else f"...{line[-_COLUMNS:]}" for line in kept]
    else:
        kept = [line if len(line) <= _COLUMNS else f"{line[:_COLUMNS]}..." for line in kept]
    if len(kept) < len(lines):
        kept = ["...", *kept] if from_end else [*kept, "..."]
    indent = f"    {title:<7}"
    return [
        f"{indent if i == 0 else ' ' * len(indent)}{line}".rstrip() for i, line in enumerate(kept)
    ]


def by_source_text(losses: Mapping[str, float]) -> str:
    """`code 1.2034, prose 0.9120`; empty where there is but one source."""
    return ", ".join(f"{name} {loss_text(loss)}" for name, loss in losses.items())


def time_left(progress: Progress) -> list[str]:
    """`eta 3m05s`, while there are steps to come and their pace is known."""
    if progress.eta_seconds is None or progress.step >= progress.steps:
        return []
    return [f"eta {duration_text(progress.eta_seconds)}"]


def figures(progress: Progress) -> list[str]:
    """The numbers of a run that are known so far, each with its name or unit."""
    found: list[str] = []
    if progress.loss is not None:
        found.append(f"loss {loss_text(progress.loss)}")
    if progress.held_out_loss is not None:
        found.append(f"held-out {loss_text(progress.held_out_loss)}")
    if progress.learning_rate is not None:
        found.append(f"lr {progress.learning_rate:.2e}")
    if progress.tokens_per_second is not None and progress.trained_tokens_per_second is not None:
        found.append(f"{progress.tokens_per_second:,.0f} tok/s")
        found.append(f"{progress.trained_tokens_per_second:,.0f} trained tok/s")
    if progress.utilisation is not None:
        found.append(f"MFU {progress.utilisation:.0%}")
    if progress.saved_share is not None:
        found.append(f"shared {progress.saved_share:.0%}")
    if progress.peak_memory_bytes:
        found.append(bytes_text(progress.peak_memory_bytes))
    if progress.ranks > 1 and progress.busy_share is not None:
        found.append(f"{progress.ranks} ranks {progress.busy_share:.0%} busy")
    return found


def loss_text(loss: object) -> str:
    """Four decimals; a loss that is not a number stands as JSON's null in the log."""
    return f"{loss:.4f}" if isinstance(loss, int | float) else "not a number"


def flops_text(flops_per_second: float) -> str:
    """`73 GFLOP/s`, `412 TFLOP/s`."""
    giga = flops_per_second / 1e9
    return f"{giga / 1000:,.0f} TFLOP/s" if giga >= 10_000 else f"{giga:,.0f} GFLOP/s"


def bytes_text(count: int) -> str:
    """`1.5 GiB`, `300 MiB`, `12 KiB`."""
    mib = count / 2**20
    if 0 < mib < 1:
        return f"{count / 1024:.0f} KiB"
    return f"{mib / 1024:.1f} GiB" if mib >= 1000 else f"{mib:.0f} MiB"


def duration_text(seconds: float) -> str:
    """`45s`, `3m05s`, `2h07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
