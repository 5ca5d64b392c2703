"""`hone serve`: runs and models for OpenAI clients, until Ctrl-C. It parses, calls and prints."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from hone.cli.answer_flags import Revision


def serve(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[ALIAS=]NAME…",
            help="Runs, RUN@STEP, trained models (PROJECT/NAME), adapter folders, model folders or hub ids. Adapters of one base share it.",
        ),
    ],
    *,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Where to listen; others than loopback need a key."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="NUMBER", help="0 takes a free one.")
    ] = 8000,
    engine: Annotated[
        Literal["auto", "transformers", "vllm"],
        typer.Option(
            help="auto: vLLM where it and a GPU are here, else transformers in this process."
        ),
    ] = "auto",
    max_batch: Annotated[
        int, typer.Option(min=1, metavar="COUNT", help="Replies written at the same time.")
    ] = 64,
    max_queue: Annotated[
        int,
        typer.Option(min=1, metavar="COUNT", help="Requests that may wait; more are answered 429."),
    ] = 256,
    max_tokens: Annotated[
        int,
        typer.Option(min=1, metavar="COUNT", help="Longest reply where a request does not say."),
    ] = 2048,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A host name by which it may be called too."),
    ] = None,
    revision: Revision = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON when it answers.")
    ] = False,
) -> None:
    """Serve runs and models as the OpenAI API has it, until Ctrl-C.

    A run answers as RUN by its newest checkpoint, and as RUN@STEP by each; new ones need no restart. So does what
    a TrainableModel left: PROJECT/NAME answers as NAME. The API key that clients must bring is read from HONE_API_KEY.
    """
    from hone.serving.packages import require_packages

    require_packages("hone serve")
    from hone.serving.open import Limits, open_server, snippets
    from hone.serving.server import Address

    key = os.environ.get("HONE_API_KEY") or None
    address = Address(host, port, key, tuple(allow_host or ()))
    limits = Limits(batch=max_batch, queue=max_queue, tokens=max_tokens)
    places = [place_of(name) for name in names]
    server, served = open_server(places, address, limits=limits, engine=engine, revision=revision)
    if as_json:
        told = {
            "event": "ready",
            "base_url": server.base_url,
            "port": server.port,
            "models": served,
        }
        print(json.dumps(told), flush=True)
    else:
        print(f"serving at {server.base_url} (Ctrl-C ends it)")
        for name in served:
            print(f"  {name}")
        if served:
            how = snippets(server.base_url, served[0], has_key=key is not None)
            print(f"\n{how['python']}\n\n{how['curl']}", flush=True)
        else:
            print("  nothing yet: the run has no checkpoint so far", flush=True)
    sys.stdout.flush()
    server.run()


def place_of(name: str) -> str:
    """`[ALIAS=]PROJECT/NAME[@STEP]` of a trained model with its folder instead; anything else as it is."""
    from hone.trainable.folder import find_model

    alias, equals, target = name.partition("=")
    for before, told in (("", name), (f"{alias}=", target if equals else "")):
        if Path(told).exists():
            return name
        path, at, step = told.rpartition("@")
        is_step = bool(at) and step.isdecimal()
        found = find_model(path if is_step else told)
        if found is not None:
            return f"{before}{found}{f'@{step}' if is_step else ''}"
    return name
