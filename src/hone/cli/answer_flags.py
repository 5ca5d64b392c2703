"""The flags of every verb that has a model answer: one declaration each. It knows no verb."""

from __future__ import annotations

from typing import Annotated

import typer

Partner = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FOLDER|HUB_ID",
        help="A run, a checkpoint, an adapter folder, a model folder or a hub id.",
    ),
]
System = Annotated[
    str | None, typer.Option(metavar="TEXT", help="System message before everything else.")
]
MaxTokens = Annotated[int, typer.Option(min=1, metavar="COUNT", help="Longest reply, in tokens.")]
Temperature = Annotated[
    float,
    typer.Option(min=0, metavar="NUMBER", help="0 takes the likeliest token; 1 draws freely."),
]
TopP = Annotated[
    float,
    typer.Option(metavar="SHARE", help="Draw among the likeliest tokens of this probability."),
]
Seed = Annotated[int | None, typer.Option(metavar="NUMBER", help="Makes drawing repeatable.")]
Revision = Annotated[
    str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of a hub model.")
]
Batch = Annotated[
    int, typer.Option(min=1, metavar="COUNT", help="Replies written at the same time.")
]
