"""The flags of `hone evaluate` that no other verb has. It knows no measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DATA…] [key=value]",
        help="Rows with answers (files, folders, hub ids), each a source; and settings of data and compute.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Put this model beside. Unset: what it was tuned from."),
]
NoBase = Annotated[bool, typer.Option("--no-base", help="Evaluate it alone.")]
Metric = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Only this measure; may be said again."),
]
Limit = Annotated[
    int | None,
    typer.Option(min=0, metavar="ROWS", help="Only the first rows of each source; 0: all."),
]
Schema = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A JSON Schema that answers must fit: json_schema."),
]
Regex = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="What must be found; with a group, what it takes must be the reference's.",
    ),
]
JudgeModel = Annotated[
    str | None, typer.Option(metavar="MODEL", help="A model that says which answers pass.")
]
JudgeUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="The judge's OpenAI-compatible API.")
]
JudgePrompt = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="When an answer passes, in your words."),
]
JudgeKeyEnv = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Variable with its key, also in .env (OPENAI_API_KEY)."),
]
JudgeTokens = Annotated[
    int, typer.Option(min=16, metavar="COUNT", help="Longest reply of the judge, in tokens.")
]
Task = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A task of lm-evaluation-harness; may be said again."),
]
TaskFolder = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Your own tasks of the harness.")
]
FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METRIC=VALUE",
        help="Leave with code 9 where it is worse: below, or above for loss and perplexity.",
    ),
]
Resamples = Annotated[
    int, typer.Option(min=100, max=100_000, metavar="COUNT", help="Bootstrap draws.")
]
BootstrapSeed = Annotated[
    int, typer.Option(min=0, metavar="NUMBER", help="Names the bootstrap's draws.")
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where the files go. Unset: evaluations/MODEL-DATA."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a result that stands there already.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print each event as one line of JSON, the result last.")
]
