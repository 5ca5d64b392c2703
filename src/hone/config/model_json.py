"""A JSON file of a model folder: an object, of bounded size and depth, or a refusal that names the file.

A model folder is a stranger's. What it says is data, and no more of it than can be read at ease.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, cast

from hone.errors import ModelError

CONFIG_BYTES: Final = 64 * 2**20
"""The largest configuration or template."""
INDEX_BYTES: Final = 64 * 2**20
"""The largest index of weights: some 500,000 of them."""
TOKENIZER_BYTES: Final = 256 * 2**20
"""The largest `tokenizer.json`; vocabularies of 262,144 tokens take 35 MB."""


def check_size(path: Path, most: int) -> None:
    """Raises ModelError where a file has more than `most` bytes, which no model in use needs."""
    size = path.stat().st_size
    if size > most:
        raise ModelError(
            f"{path.name} has {size:,} bytes; more than {most:,} are not read",
            where=str(path),
            remedy="fetch the model again from its first source",
        )


def read_model_json(path: Path, most: int = CONFIG_BYTES) -> dict[str, Any]:
    """The object in a file. Raises ModelError where it is not there, too large, too deep, or no JSON object."""
    try:
        check_size(path, most)
        found: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ModelError(
            f"{path.name} cannot be read: {said}",
            where=str(path),
            remedy="fetch or save the model again",
        ) from error
    if not isinstance(found, dict):
        raise ModelError(
            f"{path.name} holds no JSON object",
            where=str(path),
            remedy="fetch or save the model again",
        )
    return cast("dict[str, Any]", found)
