"""`hone infer`: a file of prompts answered, or a conversation. It parses, calls and prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hone.cli.answer_flags import (
    Batch,
    MaxTokens,
    Partner,
    Revision,
    Seed,
    System,
    Temperature,
    TopP,
)
from hone.cli.answer_screen import AnswerFace, JsonFace
from hone.cli.chat import converse
from hone.errors import ConfigError


def infer(
    context: typer.Context,
    name: Partner,
    *,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Prompts: one on each line of a .txt, or rows; without a name test_inputs.txt here (see --batch-file).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="PATH.jsonl and PATH.txt are written. Unset: preds."),
    ] = None,
    batch_file: Annotated[
        bool,
        typer.Option("--batch-file", help="Answer test_inputs.txt (else demo_inputs.txt) here."),
    ] = False,
    system: System = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    batch: Batch = 64,
    revision: Revision = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace outputs that stand there already.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event, or reply, as one line of JSON.")
    ] = False,
) -> None:
    """Answer a file of prompts many at a time, or talk.

    With --input, --output or --batch-file it answers a file: PATH.jsonl gets a row for each answer, PATH.txt a line,
    on which a line feed stands as \\n and a backslash as \\\\. Without them it talks, as `hone chat` does.
    """
    from hone.infer.completer import Sampling

    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    if input_file is None and output is None and not batch_file:
        _refuse_idle(context)
        from hone.recipes.chat import open_chat

        talk, notices = open_chat(name, system=system, sampling=sampling, revision=revision)
        for notice in notices:
            print(f"note: {notice}", file=sys.stderr, flush=True)
        converse(talk, as_json=as_json)
        return
    from hone.recipes.infer import DEFAULT_OUTPUT, Order, find_input
    from hone.recipes.infer import infer as run

    order = Order(
        name,
        find_input(input_file),
        output or DEFAULT_OUTPUT,
        system,
        sampling,
        revision,
        batch,
        force,
    )
    if as_json:
        run(order, listeners=[JsonFace().take])
        return
    face = AnswerFace()
    done = run(order, listeners=[face.take])
    face.close()
    speed = f"{done.tokens / max(1e-9, done.seconds):,.0f} tokens/s with loading"
    print(f"{done.answers:,} answers, {done.tokens:,} tokens, {done.seconds:.1f} s ({speed})")
    if done.cut:
        print(f"{done.cut:,} of them were cut at --max-tokens {max_tokens}")
    print(f"wrote {done.jsonl} and {done.text}")


def _refuse_idle(context: typer.Context) -> None:
    """Options of the batch say nothing to a conversation."""
    for option in ("batch", "force"):
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(
                f"--{option} has no effect on a conversation",
                remedy="name prompts with --input, or leave it out",
            )
