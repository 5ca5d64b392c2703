"""`hone distill`: prompts answered by a teacher, and on request straight into training. It parses, calls and prints."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hone.cli.inputs import resolve_words
from hone.cli.lines import duration_text
from hone.cli.printable import printable
from hone.cli.screen import open_screen, paint
from hone.cli.streams import QuietOutput, look_of
from hone.config.layers import Resolved
from hone.errors import ConfigError
from hone.runs.events import Event

_LINE_SECONDS: Final = 10.0
_FAILURES_SHOWN: Final = 10
_ONLY_REMOTE: Final = (
    "api_key_env", "concurrency", "requests_per_minute", "retries", "timeout", "tokens_per_minute",
)  # fmt: skip


BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help="An OpenAI-compatible API, e.g. https://api.openai.com/v1.",
    ),
]
Samples = Annotated[
    int, typer.Option(min=1, metavar="COUNT", help="Answers to each prompt, a row each.")
]
System = Annotated[
    str | None, typer.Option(metavar="TEXT", help="System message of prompts that have none.")
]
Temperature = Annotated[
    float | None, typer.Option(min=0, metavar="NUMBER", help="0 takes the likeliest token.")
]
TopP = Annotated[
    float | None,
    typer.Option(min=0, max=1, metavar="SHARE", help="Draw among the likeliest tokens."),
]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, metavar="COUNT", help="Longest answer, in tokens.")
]
Seed = Annotated[
    int | None,
    typer.Option(metavar="NUMBER", help="Sample n of a prompt is drawn with seed + n."),
]
Concurrency = Annotated[
    int, typer.Option(min=1, max=1024, metavar="COUNT", help="Requests at once.")
]
RequestsPerMinute = Annotated[
    float | None, typer.Option(min=0.01, metavar="COUNT", help="Requests a minute, at most.")
]
TokensPerMinute = Annotated[
    float | None, typer.Option(min=1, metavar="COUNT", help="Tokens a minute, at most.")
]
MaxTotalTokens = Annotated[
    int | None,
    typer.Option(min=1, metavar="COUNT", help="Budget for this output, prompts and answers."),
]
MaxCost = Annotated[
    float | None,
    typer.Option(min=0, metavar="MONEY", help="Budget for this output, by the prices."),
]
PriceInput = Annotated[
    float | None, typer.Option(min=0, metavar="MONEY", help="Price of a million prompt tokens.")
]
PriceOutput = Annotated[
    float | None,
    typer.Option(min=0, metavar="MONEY", help="Price of a million answered tokens."),
]
Retries = Annotated[
    int,
    typer.Option(min=0, max=100, metavar="COUNT", help="Times that a request is sent again."),
]
Timeout = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="Longest wait for a whole answer.")
]


def distill(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="PROMPTS [key=value]",
            help="A .txt file with a prompt on each line, or rows that end before an answer (messages, "
            "prompt, tools; an answer that stands there is left out); with --train, settings of the training.",
        ),
    ],
    *,
    teacher: Annotated[
        str,
        typer.Option(
            metavar="MODEL", help="The API's model; without --base-url a run or a model folder."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The rows, .jsonl or .json.")],
    base_url: BaseUrl = None,
    samples: Samples = 1,
    system: System = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    concurrency: Concurrency = 8,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    max_total_tokens: MaxTotalTokens = None,
    max_cost: MaxCost = None,
    price_input: PriceInput = None,
    price_output: PriceOutput = None,
    retries: Retries = 5,
    timeout: Timeout = 600.0,
    api_key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Variable with the key, also in .env (OPENAI_API_KEY)."),
    ] = None,
    train: Annotated[
        str | None, typer.Option(metavar="FOLDER|HUB_ID", help="Then train this model on the rows.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Move earlier answers aside, and ask everything again.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an output that another command wrote.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as one line of JSON.")
    ] = False,
) -> None:
    """Have a teacher answer prompts, and write the answers as rows to train on.

    The same command goes on where it ended, and asks nothing twice. Refused, empty and cut answers go to
    FILE's .rejected.jsonl. Budgets count all commands that wrote FILE.
    """
    from hone.recipes.asking import Patience
    from hone.recipes.distill import Order
    from hone.recipes.distill import distill as run
    from hone.recipes.spending import Limits
    from hone.recipes.teacher import Drawing

    training = _training(words[1:], train, out)
    order = Order(
        Path(words[0]), teacher, out, base_url, samples, system,
        Drawing(temperature, top_p, max_tokens, seed), timeout, api_key_env,
    )  # fmt: skip
    limits = Limits(max_total_tokens, max_cost, price_input, price_output)
    patience = Patience(concurrency, requests_per_minute, tokens_per_minute, retries)
    face = _Json() if as_json else _Lines()
    if base_url is None:
        _say_idle(context, face)
    run(order, limits=limits, patience=patience, fresh=fresh, force=force, listeners=[face.take])
    if training is not None:
        _train(training, command=["hone", *context.obj], as_json=as_json)
    elif not as_json:
        typer.echo(f"next: hone train {shlex.quote(str(out))} --model MODEL")


def _training(settings: Sequence[str], model: str | None, out: Path) -> Resolved | None:
    """The configuration of the training that follows, checked before anything is paid."""
    if model is None:
        if settings:
            raise ConfigError(
                f"{settings[0]} has no effect without --train",
                remedy="add --train MODEL, or leave it out; one file of prompts is asked",
            )
        return None
    if odd := next((word for word in settings if "=" not in word), None):
        raise ConfigError(f"{odd!r} is no setting", remedy="a setting is written section.key=value")
    from hone.models.source import find_model

    flags = {"data.path": str(out), "model.name": model}
    resolved = resolve_words(settings, flags=flags)
    find_model(resolved.config.model)
    return resolved


def _train(resolved: Resolved, *, command: list[str], as_json: bool) -> None:
    with open_screen(as_json=as_json, quiet=False) as screen:
        from hone.backends.training import train

        trained = train(resolved, command=command, listeners=[screen])
    if not as_json:
        typer.echo(f"next: hone chat {shlex.quote(str(trained.folder))}")


def _say_idle(context: typer.Context, face: _Json | _Lines) -> None:
    for name in _ONLY_REMOTE:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = "--" + name.replace("_", "-")
            message = f"{flag} is not applicable here: the teacher answers in this process"
            face.take(Event("notice", time.time(), {"code": "idle-option", "message": message}))


class _Json:
    """Each event as one line of JSON."""

    def __init__(self) -> None:
        self._output = QuietOutput(sys.stdout)

    def take(self, event: Event) -> None:
        """Show one event."""
        told = {"event": event.name, "time": event.time, **event.fields}
        self._output.write_line(json.dumps(told))


class _Lines:
    """A line at the beginning, one about every ten seconds and tenth, and what came of it."""

    def __init__(self) -> None:
        self._output = QuietOutput(sys.stdout)
        self._look = look_of(self._output.stream, {})
        self._ended = self._wanted = self._tenth = self._failures = self._retries = 0
        self._outcomes: dict[str, int] = {}
        self._said_at = time.monotonic()

    def take(self, event: Event) -> None:
        """Show one event."""
        match event.name:
            case "teacher":
                self._begin(event)
            case "notice":
                self._line(f"note: {event['message']}", "notice")
            case "answer":
                self._count(str(event["outcome"]))
            case "failure":
                self._failures += 1
                if self._failures <= _FAILURES_SHOWN:
                    self._line(f"failed: {event['row']}: {event['reason']}", "notice")
                self._count("failed")
            case "retry":
                self._retries += 1
                if self._retries <= _FAILURES_SHOWN:
                    wait = f"again in {event['seconds']:.1f} s"
                    self._line(f"{event['row']}: {event['reason']}; {wait}", "phase")
            case "distilled":
                for line in _summary(event):
                    self._line(line, "distilled")
            case _:
                pass

    def _begin(self, event: Event) -> None:
        self._wanted = int(event["missing"])
        where = f" at {event['at']}" if event["at"] else ", in this process"
        asked = int(event["requests"]) - self._wanted
        done = f"; {asked:,} of them are answered already" if asked else ""
        self._line(f"teacher: {event['teacher']}{where}; {event['requests']:,} requests{done}", "")
        self._line(f"journal: {event['journal']}", "phase")

    def _count(self, outcome: str) -> None:
        self._ended += 1
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        tenth, now = self._ended * 10 // max(1, self._wanted), time.monotonic()
        if tenth > self._tenth or now - self._said_at >= _LINE_SECONDS:
            self._tenth, self._said_at = tenth, now
            parts = ", ".join(f"{count:,} {name}" for name, count in self._outcomes.items())
            self._line(f"{self._ended:,} of {self._wanted:,}: {parts}", "")

    def _line(self, text: str, kind: str) -> None:
        self._output.write_line(paint(printable(text), kind, self._look))


def _summary(event: Event) -> list[str]:
    outcomes: dict[str, Any] = dict(event["outcomes"])
    shown = {name: count for name, count in outcomes.items() if count or name == "answered"}
    if event["left"]:
        shown["not asked"] = event["left"]
    cost = "" if event["cost"] is None else f", {event['cost']:,.4f} by the prices"
    lines = [
        f"{event['requests']:,} requests: "
        + ", ".join(f"{count:,} {name}" for name, count in shown.items()),
        f"{event['tokens']:,} tokens{cost}, {duration_text(float(event['seconds']))}",
    ]
    if event["out"]:
        lines.append(f"wrote {event['out']}: {event['rows']:,} rows")
    if event["rejected"]:
        lines.append(f"the others, by name and reason: {event['rejected']}")
    return lines
