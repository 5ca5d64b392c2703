"""`hone export`: a trained model in the form that another program wants. It parses, calls and prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from hone.cli.changed import tidied
from hone.cli.lines import bytes_text
from hone.cli.printable import printable
from hone.errors import ConfigError

_NEXT = {
    "safetensors": "serve it: hone serve {folder}",
    "gguf": "run it: llama-cli -m {folder}/{file}",
    "ollama": "take it in: ollama create NAME -f {folder}/Modelfile",
    "peft": "serve it: vllm serve BASE --enable-lora --lora-modules NAME={folder}",
    "hub": "publish it: hone push {folder} USER/NAME",
}


def export(
    context: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, an adapter's folder, or a model.")
    ],
    *,
    to: Annotated[
        str, typer.Option("--to", metavar="FORM", help="safetensors, gguf, ollama, peft or hub.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where; else RUN/FORM.")
    ] = None,
    gguf_type: Annotated[
        str,
        typer.Option("--gguf-type", metavar="TYPE", help="gguf, ollama: f32, f16, bf16 or q8_0."),
    ] = "f16",
    merged: Annotated[
        bool, typer.Option("--merged", help="hub: the whole model, not the adapter.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="USER/NAME", help="peft, hub: the base's id on the hub."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a trained model in the form that another program wants: a new folder, whole or not there.

    An adapter is merged into its unquantised base first where the form holds a whole model. GGUF files are read
    back and compared weight by weight.
    """
    _refuse(context, to)
    from hone.recipes.export import Wanted
    from hone.recipes.export import export as run_export

    wanted = Wanted(cast(Any, to), gguf_type=gguf_type, merged=merged, base_id=base)
    with tidied():
        done = run_export(run, wanted, out)
    if as_json:
        sys.stdout.write(json.dumps(done.to_json(), ensure_ascii=False) + "\n")
        return
    for sentence in done.sentences:
        typer.echo(printable(sentence))
    for notice in done.notices:
        typer.echo(f"note: {printable(notice)}")
    typer.echo(
        f"wrote {printable(str(done.folder))}: {', '.join(done.files)} ({bytes_text(done.num_bytes)})"
    )
    file = next((name for name in done.files if name.endswith(".gguf")), "")
    typer.echo(_NEXT[to].format(folder=printable(str(done.folder)), file=file))


def _refuse(context: typer.Context, form: str) -> None:
    """A flag of another form would do nothing, so it is refused."""
    belongs = {"gguf_type": ("gguf", "ollama"), "merged": ("hub",), "base": ("peft", "hub")}
    for name, forms in belongs.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and form not in forms:
            raise ConfigError(
                f"--{name.replace('_', '-')} has no effect with --to {form}",
                remedy=f"leave it out; it goes with --to {' or '.join(forms)}",
            )
