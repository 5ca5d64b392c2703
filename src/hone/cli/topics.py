"""`hone help TOPIC`: short pages on what no single command's help can say. It reads tables, no files."""

from __future__ import annotations

from typing import Annotated

import typer

from hone.errors import EXIT_CODES, ConfigError, nearest

_SETTINGS = """\
A setting is said in one of five places; the later one wins:
  1. the default                (`hone config show` lists them all)
  2. a YAML or JSON file        hone train config.yaml
  3. the environment            HONE_TRAIN_LEARNING_RATE=1e-4, HONE_TUNING_LORA_R=8
  4. a dotted override          hone train rows.jsonl train.learning_rate=1e-4 'data.columns={user: question}'
  5. a short flag               --model --epochs --lr --batch-size --output
Values are YAML 1.2: 1e-4 is a number, true and false are truth values, null clears a setting.
Text settings take what you typed: 2024-01-01 and 001 stay text; quote "null" to mean that word.
`hone config show ...` takes the same words as `hone train` and says where each value came from.
"""

_ENVIRONMENT = """\
HONE_SECTION_KEY   any setting, e.g. HONE_TRAIN_BATCH_SIZE=32 (see `hone help settings`)
HONE_CACHE         folder for prepared data (`hone cache` lists and prunes it)
HONE_LLAMAFACTORY  Python that has LLaMA-Factory, for `hone train --engine llamafactory`
HF_TOKEN           token for gated models and datasets; never written anywhere
HONE_API_KEY       key that clients of `hone serve` must bring; never written anywhere
OPENAI_API_KEY     key of a teacher (`hone distill`), also read from .env; never written anywhere
HF_HUB_OFFLINE     1: use only models and datasets that are already here
NO_COLOR           any value: no colour
FORCE_COLOR        any value: colour without a terminal
TERM=dumb          plain lines instead of a live display
"""


def _exit_codes() -> str:
    return "".join(f"{code:>4}  {meaning}\n" for code, meaning in EXIT_CODES.items())


def show(
    topic: Annotated[
        str | None, typer.Argument(metavar="TOPIC", help="exit-codes, settings or environment.")
    ] = None,
) -> None:
    """Explain a topic: exit-codes, settings, environment."""
    topics = {
        "environment": _ENVIRONMENT,
        "exit-codes": _exit_codes(),
        "settings": _SETTINGS,
    }
    if topic is None:
        typer.echo("topics: " + ", ".join(topics))
    elif topic in topics:
        typer.echo(topics[topic], nl=False)
    else:
        raise ConfigError(f"no such topic: {topic!r}", remedy=nearest(topic, topics))
