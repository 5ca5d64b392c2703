"""A file of `SFTConfig` keys as a language among the others: `flat.py` reads it, and this says where each went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from hone.config.dialects.flat import SFTConfig, keys
from hone.config.dialects.foreign import Foreign, Translation
from hone.config.values import Node, fit

LANGUAGE: Final = "SFTConfig"
KEYS: Final = frozenset(SFTConfig.model_fields)
SIGNATURE: Final = frozenset({"dataset_format", "use_qlora", "template_name", "validation_split"})
"""Keys by one of which a flat file is known to be one of `SFTConfig`."""

_OF_THE_TRAINER: Final[Mapping[str, str]] = {
    "logging_steps": "each step is in the run's events",
    "checkpoint_dir": "copies at every save are written by SFTTrainer; a run keeps its checkpoints in output_dir",
    "save_merged_model": "`hone merge` writes the merged model after the run",
    "packing": "rows stand together in Packs either way, and see nothing of each other",
    "run_name": "a run is called by its folder where no tracker hears of it",
}


def read(nodes: Mapping[str, Node], file: str, environment: Mapping[str, str]) -> Translation:
    """What a file of `SFTConfig` comes to. Raises ConfigError in the words of that language."""
    del environment
    theirs = Foreign(LANGUAGE, nodes, file, KEYS)
    known = keys()
    values = {key: fit(node, known[key].annotation) for key, node in nodes.items() if key in known}
    said = {"": file} | {key: theirs.where(key) for key in nodes}
    for key in nodes:
        if key in KEYS:
            theirs.take(key)
    made = theirs.finish()
    if made.complaints:
        return made
    config = cast("Any", SFTConfig)(said, **values)
    made.values |= config.in_ours()
    made.origins |= config.origins()
    for key, reason in _OF_THE_TRAINER.items():
        if key in nodes and values.get(key) not in (None, False):
            made.remarks.append(f"not applicable here: {key}: {reason}")
    return made
