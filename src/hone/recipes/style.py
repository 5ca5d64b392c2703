"""`style`: a system instruction laid over the rows of a file or folder. It composes files and the style, and prints nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.data.changes import ChangeLedger, ChangeReport, Fate
from hone.data.outbox import Outbox
from hone.data.raw_rows import RawRow
from hone.data.style import Mode, Style, lay_style
from hone.errors import ConfigError, DataError
from hone.recipes.change import Places, parsed, raw_rows

MANIFEST = "style.json"
"""In a folder of styled rows; beside a single file it is `<file>.style.json`."""


@dataclass(frozen=True)
class _Laid:
    """One file on its way: where it is read and written."""

    source: Path
    out: Path


def styled_place(source: Path) -> Path:
    """Where styled rows go by default: `data/processed` to `data/processed_with_style`."""
    suffix = source.suffix if source.suffix in (".jsonl", ".json") else ""
    return source.with_name(f"{source.name.removesuffix(suffix)}_with_style{suffix}")


def style(places: Places, text: str, *, mode: Mode = "prepend") -> ChangeReport:
    """Write the rows of a file, or of every row file of a folder, with `text` as their system instruction.

    `prepend` puts it before an existing one, with a blank line between; `replace` puts it in its place. A style
    that was laid before, by this text or by the manifest beside the source, is taken off first, so that styles do
    not stack. A manifest says style, mode and the SHA-256 of every source and output.

    Raises ConfigError for a text or places that cannot be meant, DataError for rows that cannot be read or where
    none is left, DiskError.
    """
    text = text.strip()
    if not text:
        raise ConfigError("--style: the style is empty", remedy="say how to answer, in quotes")
    laid, manifest_in, manifest_out = _files(places)
    earlier = _earlier(manifest_in)
    rule = Style(text, mode, tuple(one for one in earlier if one != text))
    report = ChangeReport("style")
    about: list[dict[str, str]] = []
    with Outbox(inputs=[one.source for one in laid], force=places.force) as outbox:
        for one in laid:
            rows = raw_rows(one.source)
            ledger = ChangeLedger(str(one.source))
            report.ledgers.append(ledger)
            sink = outbox.rows(one.out)
            for raw, fate in rows.fates(ledger):
                if (row := _styled(raw, fate, rule, ledger)) is not None:
                    sink.add_json(row)
            report.written[str(one.out)] = sink.count
            about.append({"file": str(one.source), "sha256": rows.sha256})
        report.check("only rows with a place for a system instruction can have a style")
        told = {"style": text, "mode": mode, "source": about, "earlier": list(rule.earlier)}
        outbox.put_json(manifest_out, told)
        if manifest_out.parent == places.out:
            places.refuse_strays({one.out for one in laid})
        places.finish(report, outbox)
    return report


def _files(places: Places) -> tuple[list[_Laid], Path, Path]:
    """The files to be styled, the manifest that may stand beside them, and the one to be written."""
    source, out = places.source, places.out
    if not source.is_dir():
        beside = source.with_name(f"{source.name}.{MANIFEST}")
        return [_Laid(source, out)], beside, out.with_name(f"{out.name}.{MANIFEST}")
    if out.exists() and source.samefile(out):
        raise ConfigError(
            "the output is the input itself: nothing is changed in place",
            where=str(out),
            remedy="name another folder with --out",
        )
    found = [
        one
        for one in sorted(source.iterdir())
        if one.suffix in (".jsonl", ".json")
        and one.is_file()
        and not one.name.startswith(".")
        and not one.name.endswith((MANIFEST, ".ledger.json"))
    ]
    if not found:
        raise DataError(
            "no file of rows in the folder",
            where=str(source),
            remedy="name a folder with .jsonl or .json files, or one file",
        )
    return [_Laid(one, out / one.name) for one in found], source / MANIFEST, out / MANIFEST


def _earlier(manifest: Path) -> list[str]:
    """The styles that the manifest beside the source tells of, the last one first."""
    if not manifest.is_file():
        return []
    try:
        told: Any = json.loads(manifest.read_text(encoding="utf-8"))
        said = [told["style"], *told.get("earlier", [])]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as fault:
        raise DataError(
            f"the manifest beside the rows cannot be read: {fault}",
            where=str(manifest),
            remedy="remove it; then styles are told by their text alone",
        ) from fault
    return [one for one in said if isinstance(one, str) and one]


def _styled(raw: RawRow, fate: Fate, rule: Style, ledger: ChangeLedger) -> dict[str, Any] | None:
    """The row with its style; None where it was dropped, which its fate then knows."""
    row = parsed(raw, fate)
    if row is None:
        return None
    try:
        styled = lay_style(row, rule)
    except DataError as fault:
        place = f"{raw.origin} {fault.where or ''}".strip()
        fate.refuse(DataError(fault.what, where=place, remedy=fault.remedy))
        return None
    ledger.saw(styled.shape)
    if not styled.before:
        fate.repair("the style was added: there was no system text")
    elif styled.before == styled.after:
        fate.note("the style was there already")
    elif rule.mode == "replace":
        fate.repair("the system text was replaced by the style", styled.before[:80])
    elif any(styled.before.startswith(one) for one in rule.earlier):
        fate.repair("an earlier style was replaced by this one", styled.before[:80])
    else:
        fate.repair("the style was put before the system text", styled.before[:80])
    fate.keep()
    return styled.row
