"""What was measured on a GPU, as text: a table for each case, and the figures beside what is wanted. It measures nothing."""

from __future__ import annotations

from typing import Any

from gpu_cases import CASES
from machine import in_words

Results = dict[str, Any]


def heading(results: Results) -> str:
    """Which machine."""
    device = results["device"]
    card = (
        f"{device['card']}, {device['memory_gib']} GiB, driver {device['driver']}"
        if "card" in device
        else "no GPU"
    )
    here = ", ".join(name for name, is_here in device["packages"].items() if is_here)
    lines = [in_words(results["machine"]), f"{card}; torch {device['torch']}; also here: {here}"]
    if results["small"]:
        lines.append("A REHEARSAL with tiny models on a CPU: no figure below means anything.")
    return "\n".join(lines)


def case(name: str, results: Results) -> str:
    """One case as a table."""
    found = results["cases"][name]
    lines = [f"\n## {name}", ""]
    if "left_out" in found:
        return "\n".join([*lines, f"left out: {found['left_out']}"])
    lines += [
        "| side | tokens/s | trained tokens/s | TFLOP/s | of the product | peak GiB | as rehearsed | how |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for side, run in _runs(found):
        lines.append(_line(side, run))
    notes = [f"- {side}: {note}" for side, run in _runs(found) for note in _notes(run)]
    return "\n".join([*lines, "", *notes])


def _runs(found: Results) -> list[tuple[str, Results]]:
    runs: list[tuple[str, Results]] = []
    for side, run in found.items():
        if side == "trl" and "tried" in run:
            runs += [(f"TRL {_setting(each)}", each) for each in run["tried"]]
        else:
            runs.append(
                (
                    {"hone": "Hone", "unshared": "Hone, nothing shared", "trl": "TRL"}.get(
                        side, side
                    ),
                    run,
                )
            )
    return runs


def _setting(run: Results) -> str:
    setting = run.get("setting")
    if not setting:
        return ""
    again = "recomputing" if setting["recompute"] else "keeping"
    return f"{setting['rows']} rows, {again}{', packing' if setting['packing'] else ''}"


def _line(side: str, run: Results) -> str:
    if "failed" in run or "absent" in run:
        why = run.get("failed") or run.get("absent")
        return f"| {side} | {why} | | | | | | |"
    rehearsal = run.get("rehearsal")
    expected = (rehearsal or {}).get("peak_gib")
    how = (
        f"Packs of {rehearsal['micro_batch_tokens']:,}, {rehearsal['recomputed_layers']} layers recomputed"
        if rehearsal
        else f"{run['attention']}, liger {'on' if run['liger'] else 'off'}"
    )
    return (
        f"| {side} | {run['tokens_per_second']:,.0f} | {run['trained_tokens_per_second']:,.0f} "
        f"| {run['tflops']:,.0f} | {run['utilisation']:.1%} | {run['peak_gib']:.1f} "
        f"| {'' if expected is None else f'{expected:.1f}'} | {how} |"
    )


def _notes(run: Results) -> list[str]:
    notes: list[str] = []
    if "on" in run:
        notes.append("on: " + ", ".join(run["on"]))
        notes += [f"off: {part['what']} ({part['why']})" for part in run["off"]]
    if "product_tflops" in run:
        notes.append(f"measured product {run['product_tflops']:,.0f} TFLOP/s")
    if run.get("compiled_while_timed"):
        notes.append(f"{run['compiled_while_timed']} graphs were compiled within the timed steps")
    if "utilisation_of_weights" in run:
        notes.append(f"without attention's operations {run['utilisation_of_weights']:.1%}")
    return [*notes, *run.get("notices", ())]


def aims(results: Results) -> str:
    """Each figure that something is wanted of, beside it."""
    lines = ["\n## Beside what is wanted", "", "| case | wanted | measured |", "|---|---|---|"]
    for name in results["cases"]:
        if name not in CASES:
            continue
        for figure, words, least in CASES[name].aims:
            value = _value(figure, name, results["cases"])
            got = (
                "not measured"
                if value is None
                else f"{value:,.2f}"
                if least < 100
                else f"{value:,.0f}"
            )
            met = (
                ""
                if value is None or results["small"]
                else (" (met)" if value >= least else " (missed)")
            )
            lines.append(f"| {name} | {words}: {least:,g} | {got}{met} |")
    return "\n".join(lines)


def _value(figure: str, name: str, cases: Results) -> float | None:
    """A figure of Hone's run, or its relation to another run."""
    hone = cases[name].get("hone", {})
    if figure in ("over_peer", "over_dense"):
        other = (
            cases[name].get("trl", {}).get("best")
            if figure == "over_peer"
            else cases.get("lora-dense-llama", {}).get("hone")
        )
        if not other or "tokens_per_second" not in other or "tokens_per_second" not in hone:
            return None
        return hone["tokens_per_second"] / other["tokens_per_second"]
    return hone.get(figure)
