"""Results as tables in Markdown. It measures nothing."""

from __future__ import annotations

from statistics import median
from typing import Any

Results = dict[str, Any]


def rate(found: Results) -> str:
    """One measurement in a line."""
    if "failed" in found:
        return f"FAILED ({found['failed']})"
    return (
        f"{found['tokens_per_cpu_second']:,.0f} tokens per CPU second, "
        f"{found['tokens_per_wall_second']:,.0f} per wall second, "
        f"{found['peak_rss_mib']:,} MiB"
    )


def ranked(trials: Results) -> list[str]:
    """The settings that worked, the one with the most tokens per CPU second first."""
    worked = [name for name, trial in trials.items() if "failed" not in trial]
    return sorted(worked, key=lambda name: -trials[name]["tokens_per_cpu_second"])


def better(trial: Results, again: Results) -> Results:
    """Of two trials of one setting the faster one."""
    if "failed" in again or again["tokens_per_cpu_second"] < trial["tokens_per_cpu_second"]:
        return trial
    return {**trial, **again}


def best(trials: Results) -> str | None:
    """The setting with the most tokens per CPU second; None where all failed."""
    return next(iter(ranked(trials)), None)


def case_tables(name: str, case: Results) -> str:
    """All tables of a case."""
    lines = [f"\n## {name}", "", case["rows"]["about"], ""]
    for notice in case.get("auto", {}).get("notices", ()):
        lines.append(f"- {notice}")
    for precision in ("fp32", "bf16"):
        if precision in case:
            lines += ["", f"### {name}, {precision}", ""]
            lines += _duel(case[precision]["duel"])
            for peer, trials in case[precision].get("trials", {}).items():
                lines += _trials(peer, trials)
            lines += _shares(case[precision].get("shares"))
    return "\n".join(lines)


def _duel(duel: Results) -> list[str]:
    first = duel["first"]
    lines = [
        f"| side | tokens / CPU s | tokens / wall s | peak MiB | computed / given | {first} over it, CPU (wall) |",
        "|---|---|---|---|---|---|",
    ]
    for name, rounds in duel["rounds"].items():
        worked = [found for found in rounds if "failed" not in found]
        if not worked:
            lines.append(f"| {name} | failed: {rounds[0]['failed'] if rounds else ''} | | | | |")
            continue
        over = duel["first_over"].get(name, {})
        lead = ""
        if over:
            cpu, wall = over["tokens_per_cpu_second"], over["tokens_per_wall_second"]
            lead = f"**{cpu['median']:.2f}** ({wall['median']:.2f}); pairs {cpu['pairs']}"
        lines.append(
            f"| {name} | {_median(worked, 'tokens_per_cpu_second'):,.0f} "
            f"| {_median(worked, 'tokens_per_wall_second'):,.0f} "
            f"| {_median(worked, 'peak_rss_mib'):,.0f} "
            f"| {_median(worked, 'computed_share'):.2f} | {lead} |"
        )
    starts = [
        f"{name} {_median(worked, 'start_wall_seconds'):.1f} s wall, "
        f"{_median(worked, 'start_cpu_seconds'):.1f} s CPU"
        for name, rounds in duel["rounds"].items()
        if (worked := [found for found in rounds if "failed" not in found])
    ]
    return [*lines, "", "Before the first step: " + "; ".join(starts) + "."]


def _trials(peer: str, trials: Results) -> list[str]:
    if not trials:
        return []
    lines = [
        "",
        f"| {peer}'s setting | tokens / CPU s | computed / given | peak MiB |",
        "|---|---|---|---|",
    ]
    for name, trial in trials.items():
        if "failed" in trial:
            lines.append(f"| {name} | failed: {trial['failed']} | | |")
        else:
            lines.append(
                f"| {name} | {trial['tokens_per_cpu_second']:,.0f} "
                f"| {trial['computed_share']:.2f} | {trial['peak_rss_mib']:,} |"
            )
    return [*lines, "", f"{peer}'s best here: {best(trials)}."]


def _shares(shares: Results | None) -> list[str]:
    if not shares:
        return []
    if "failed" in shares:
        return ["", f"Shares of a step: failed: {shares['failed']}"]
    lines = [
        "",
        f"Matrix products alone are {shares['dense_share']:.0%} of the step "
        f"({shares['dense_gflops']:,.0f} GFLOP/s alone), {shares['product_share']:.0%} with the adapters' thin ones, "
        f"{shares['kernel_share']:.0%} with the attention kernels "
        f"(step {shares['step_seconds']:.2f} CPU s, {shares['tokens']:,} tokens).",
        "",
        "| where the step's time goes | share |",
        "|---|---|",
    ]
    lines += [f"| {family} | {share:.1%} |" for family, share in shares["families"].items()]
    return lines


def _median(found: list[Results], key: str) -> float:
    return median(each[key] for each in found)
