"""From names on a command line to a server: what each names, who writes, and how it is asked afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hone.errors import ConfigError
from hone.infer.served import Growing, Served, growing_base
from hone.infer.writer import Writer
from hone.serving.server import Address, Server

Engine = Literal["auto", "transformers", "vllm"]


@dataclass(frozen=True)
class Limits:
    """How much a server does at once."""

    batch: int = 64
    """Replies that are written at the same time."""
    queue: int = 256
    """Requests that may wait; those beyond are answered with status 429."""
    tokens: int = 2048
    """Longest reply where a request does not say."""


def open_server(
    names: Sequence[str],
    address: Address,
    *,
    limits: Limits | None = None,
    engine: Engine = "auto",
    revision: str | None = None,
) -> tuple[Server, list[str]]:
    """A server for `NAME` or `ALIAS=NAME` each, which listens but does not run yet; and the names it serves.

    Raises ConfigError, ModelError and EnvironmentFault where something cannot be served.
    """
    address.check()  # an open door is refused before anything loads
    limits = limits or Limits()
    served = [_served(name, revision) for name in names]
    twice = {one.name for one in served if sum(one.name == other.name for other in served) > 1}
    if twice:
        raise ConfigError(
            f"two of them have the name {min(twice)!r}", remedy="give one another: ALIAS=NAME"
        )
    writer = _writer(served, limits, engine)
    try:
        for one in served:
            if one.name in one.names():  # a run may have nothing to serve yet
                writer.voice(one.name)
        return Server(writer, address, most_tokens=limits.tokens), writer.names()
    except BaseException:
        writer.close()
        raise


def _served(name: str, revision: str | None) -> Served:
    alias, equals, target = name.partition("=")
    if not equals or Path(name).exists():
        alias, target = "", name
    shown = alias or (
        Path(target).expanduser().name if Path(target).expanduser().is_dir() else target
    )
    if "@" in alias:
        raise ConfigError(
            f"a name holds no @: {alias!r}", remedy="it stands before a checkpoint's step"
        )
    path, at, step = target.rpartition("@")
    if at and step.isdecimal() and not Path(target).exists():
        return _checkpoint(alias or Path(path).name, path, step, revision)
    base = growing_base(Path(target).expanduser())
    if base is not None:
        return Growing(shown, Path(target).expanduser(), base)
    return Served(shown, target, revision=revision)


def _checkpoint(name: str, run: str, step: str, revision: str | None) -> Served:
    """`RUN@STEP` on the command line: this one alone, under the name that says so."""
    base = growing_base(Path(run).expanduser())
    whole = (
        Served(name, run, revision=revision)
        if base is None
        else Growing(name, Path(run).expanduser(), base)
    )
    place = whole.stand(f"{name}@{step}").place()
    return Served(f"{name}@{step}", str(place.folder))


def _writer(served: Sequence[Served], limits: Limits, engine: Engine) -> Writer:
    if engine == "vllm" or (engine == "auto" and _has_vllm()):
        from hone.serving.vllm import VllmWriter

        return VllmWriter(served, rows=limits.batch, waiting=limits.queue)
    from hone.infer.batch import Bounds
    from hone.infer.shelf import Shelf

    return Shelf(served, Bounds(rows=limits.batch, waiting=limits.queue))


def _has_vllm() -> bool:
    """Whether vLLM could serve here: it wants a GPU."""
    if shutil.which("vllm") is None:
        return False
    import torch

    return torch.cuda.is_available()


def snippets(base_url: str, model: str, *, has_key: bool) -> dict[str, str]:
    """How to ask, as Python for the `openai` package and as a `curl` command; both run as they are printed."""
    key = 'os.environ["HONE_API_KEY"]' if has_key else '"none"'
    question = [{"role": "user", "content": "Hello!"}]
    python = "\n".join(
        [
            *(["import os"] if has_key else []),
            "from openai import OpenAI",
            f"client = OpenAI(base_url={json.dumps(base_url)}, api_key={key})",
            f"reply = client.chat.completions.create(model={json.dumps(model)}, messages={json.dumps(question)})",
            "print(reply.choices[0].message.content)",
        ]
    )
    body = json.dumps({"model": model, "messages": question}).replace("'", "'\\''")
    parts = [f"curl {base_url}/chat/completions", "-H 'Content-Type: application/json'"]
    if has_key:
        parts.append('-H "Authorization: Bearer $HONE_API_KEY"')
    return {"python": python, "curl": " ".join([*parts, f"-d '{body}'"])}
