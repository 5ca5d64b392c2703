"""What stands behind a verb on the command line, turned into a configuration. It knows no verb.

`[DATA | CONFIG.yaml] [key=value ...]`: a word with `=` is a setting (unless a file has that very name), one that ends
in .yaml or .yml is a configuration file, any other names the rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hone.backends.gpus import visible_gpus
from hone.config.dialects.choice import Dialect
from hone.config.layers import Resolved, resolve
from hone.errors import ConfigError

WORDS_METAVAR = "DATA|CONFIG.yaml|key=value"
WORDS_HELP = (
    "Rows (a file, a folder or a hub id), or a configuration file, and any settings, "
    "e.g. train.learning_rate=1e-4."
)


@dataclass(frozen=True)
class Sorted:
    """Words behind a verb by what they are."""

    config: Path | None
    data: str | None
    overrides: list[str]


def sort_words(words: Sequence[str], config: Path | None = None) -> Sorted:
    """The configuration file, the rows and the settings among words. Raises ConfigError where two are files."""
    overrides: list[str] = []
    data: str | None = None
    for word in words:
        if "=" in word and not Path(word).exists():
            overrides.append(word)
        elif word.endswith((".yaml", ".yml")):
            if config is not None:
                raise ConfigError(
                    f"two configuration files: {config} and {word}",
                    where="command line",
                    remedy="name one; single settings can follow as key=value",
                )
            config = Path(word)
        elif data is None:
            data = word
        else:
            raise ConfigError(
                f"two files of rows: {data} and {word}",
                where="command line",
                remedy="name one; a setting is written key=value",
            )
    return Sorted(config, data, overrides)


def resolve_words(
    words: Sequence[str],
    *,
    config: Path | None = None,
    flags: Mapping[str, str | None],
    dialect: Dialect | None = None,
) -> Resolved:
    """The configuration that the words, the flags and the environment give together.

    `flags` map a setting's dotted name to what was typed, None where the flag was absent. `dialect`: the language
    of the configuration file, where it is not to be recognised.
    """
    found = sort_words(words, config)
    return resolve(
        file=found.config,
        environment=os.environ,
        overrides=found.overrides,
        flags={"data.path": found.data, **flags},
        dialect=dialect,
        devices=visible_gpus,
    )
