"""`hone evaluate`: measures in a table, a report beside it, a gate for CI. It parses, calls and prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hone.cli.answer_flags import Batch, MaxTokens, Partner, Revision, Seed, Temperature, TopP
from hone.cli.answer_screen import AnswerFace, JsonFace
from hone.cli.distill import (
    Concurrency,
    MaxCost,
    MaxTotalTokens,
    PriceInput,
    PriceOutput,
    Retries,
    Timeout,
)
from hone.cli.evaluate_flags import (
    AsJson,
    Base,
    BootstrapSeed,
    FailUnder,
    Force,
    JudgeKeyEnv,
    JudgeModel,
    JudgePrompt,
    JudgeTokens,
    JudgeUrl,
    Limit,
    Metric,
    NoBase,
    Out,
    Regex,
    Resamples,
    Schema,
    Task,
    TaskFolder,
    Words,
)
from hone.cli.printable import printable
from hone.errors import ConfigError

if TYPE_CHECKING:
    from hone.recipes.evaluation.bootstrap import Interval
    from hone.recipes.evaluation.judge import Judge
    from hone.recipes.evaluation.report import Finding
    from hone.recipes.evaluation.result import Sample, Taken

_SHOWN_MISSES = 3
_LONGEST = 160  # characters of a text on the terminal
_OF_JUDGE = (
    "judge_url", "judge_prompt", "judge_key_env", "judge_tokens", "concurrency", "max_total_tokens", "max_cost",
    "price_input", "price_output", "retries", "timeout",
)  # fmt: skip


def evaluate(
    context: typer.Context,
    name: Partner,
    words: Words = None,
    *,
    base: Base = None,
    no_base: NoBase = False,
    metric: Metric = None,
    limit: Limit = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    batch: Batch = 64,
    schema: Schema = None,
    regex: Regex = None,
    judge: JudgeModel = None,
    judge_url: JudgeUrl = None,
    judge_prompt: JudgePrompt = None,
    judge_key_env: JudgeKeyEnv = None,
    judge_tokens: JudgeTokens = 512,
    concurrency: Concurrency = 8,
    max_total_tokens: MaxTotalTokens = None,
    max_cost: MaxCost = None,
    price_input: PriceInput = None,
    price_output: PriceOutput = None,
    retries: Retries = 5,
    timeout: Timeout = 600.0,
    task: Task = None,
    task_folder: TaskFolder = None,
    fail_under: FailUnder = None,
    resamples: Resamples = 2000,
    bootstrap_seed: BootstrapSeed = 0,
    out: Out = None,
    revision: Revision = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model on rows: the loss of their answers, and its own answers beside them.

    The base it was tuned from is measured beside it, with 95% intervals. FOLDER gets result.json, samples.jsonl and
    report.html. Which measures are taken follows from the rows; what is left out is said.
    """
    said = dict(locals())
    _refuse_idle(context, said)
    order = _order(said)
    from hone.recipes.evaluate import evaluate as run

    if as_json:
        run(order, listeners=[JsonFace().take])
        return
    face = AnswerFace()
    shown: list[Finding] = []
    try:
        run(order, listeners=[face.take], on_finding=shown.append)
    finally:
        face.close()
        for finding in shown:
            for line in _lines(finding):
                print(printable(line))


def _order(said: dict[str, Any]) -> Any:
    from hone.infer.completer import Sampling
    from hone.recipes.evaluate import Order
    from hone.recipes.evaluation.bootstrap import Draws
    from hone.recipes.evaluation.choice import Wishes

    words: Sequence[str] = said["words"] or ()
    settings = tuple(word for word in words if "=" in word and not Path(word).exists())
    data = tuple(word for word in words if word not in settings)
    judge = _judge(said)
    return Order(
        name=said["name"],
        data=data,
        settings=settings,
        base=said["base"],
        alone=said["no_base"],
        revision=said["revision"],
        wishes=Wishes(
            tuple(said["metric"] or ()), said["schema"], said["regex"], judge is not None
        ),
        limit=said["limit"] or None,
        sampling=Sampling(
            max_tokens=said["max_tokens"],
            temperature=said["temperature"],
            top_p=said["top_p"],
            seed=said["seed"],
        ),
        rows_at_once=said["batch"],
        judge=judge,
        tasks=tuple(said["task"] or ()),
        task_folder=said["task_folder"],
        gates=tuple(said["fail_under"] or ()),
        draws=Draws(said["resamples"], said["bootstrap_seed"]),
        out=said["out"],
        force=said["force"],
    )


def _judge(said: dict[str, Any]) -> Judge | None:
    if said["judge"] is None:
        return None
    if said["judge_url"] is None:
        raise ConfigError(
            "--judge needs --judge-url, the address of its API",
            remedy="e.g. --judge-url https://api.openai.com/v1, or that of `hone serve MODEL`",
        )
    from hone.recipes.asking import Patience
    from hone.recipes.evaluation.judge import CRITERION, Judge
    from hone.recipes.spending import Limits

    criterion = CRITERION
    if said["judge_prompt"] is not None:
        try:
            criterion = said["judge_prompt"].read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--judge-prompt cannot be read: {error}", where=str(said["judge_prompt"])
            ) from error
    return Judge(
        said["judge"],
        said["judge_url"],
        said["judge_key_env"],
        criterion,
        said["judge_tokens"],
        said["timeout"],
        Limits(
            said["max_total_tokens"], said["max_cost"], said["price_input"], said["price_output"]
        ),
        Patience(concurrency=said["concurrency"], retries=said["retries"]),
    )


def _refuse_idle(context: typer.Context, said: dict[str, Any]) -> None:
    """Options that need another one say so where that is missing."""
    needs = dict.fromkeys(_OF_JUDGE, ("judge", "--judge")) | {"task_folder": ("task", "--task")}
    for option, (other, flag) in needs.items():
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE" and not said[other]:
            raise ConfigError(
                f"--{option.replace('_', '-')} has no effect without {flag}",
                remedy=f"add {flag}, or leave it out",
            )


def _lines(finding: Finding) -> list[str]:
    lines = _table(finding.taken)
    for source, taken in finding.by_source.items():
        lines += ["", f"{source}:", *(f"  {line}" for line in _table(taken))]
    for name, numbers in finding.tasks.items():
        lines += ["", f"lm-eval, {name}:", *(f"  {k}  {v:.4f}" for k, v in numbers.items())]
    misses = finding.misses(_SHOWN_MISSES)
    if misses:
        lines += ["", "worst answers:"]
        for one in misses:
            lines += _miss(one)
    needed = [f"{name} ({why})" for name, why in finding.left_out.items() if "asked" not in why]
    if needed:
        lines += ["", "left out: " + "; ".join(needed)]
    return [*lines, "", f"wrote {finding.out}: result.json, samples.jsonl, report.html"]


def _table(taken: Sequence[Taken]) -> list[str]:
    pairs = any(one.base is not None for one in taken)
    rows = [["measure", "tuned", *(["base", "difference", ""] if pairs else []), "n"]]
    for one in taken:
        row = [one.name, _shown(one.tuned)]
        if pairs:
            row += [_shown(one.base), _shown(one.difference), one.verdict]
        rows.append([*row, f"{one.questions:,}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _shown(one: Interval | None) -> str:
    from hone.recipes.evaluation.page import number

    if one is None or one.value is None:
        return "-"
    between = "" if one.low is None else f" [{number(one.low)}, {number(one.high)}]"
    return f"{number(one.value)}{between}"


def _miss(one: Sample) -> list[str]:
    asked = one.question.messages[-1].content
    wanted = [one.question.reference.text]
    wanted += [f"{call.name}({call.arguments})" for call in one.question.reference.calls]
    lines = [f"  {one.question.row}", f"    asked     {_short(asked)}"]
    lines.append(f"    wanted    {_short(' '.join(wanted))}")
    for name, answer in one.answers.items():
        got = [answer.text, *(f"{call.name}({dict(call.arguments)})" for call in answer.calls)]
        lines.append(f"    {name:<9} {_short(' '.join(got)) or '(empty)'}")
    return lines


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
