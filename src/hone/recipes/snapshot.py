"""A loadable copy of what trains, as it is at some step: an adapter folder or a model folder, tokenizer included.

It is no checkpoint: nothing in it continues a run. Plain `transformers` and `peft` code loads it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import cast

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from hone.config.sections import Config
from hone.data.render import Renderer
from hone.data.template import load_template
from hone.errors import ConfigError, DiskError
from hone.infer.stops import stop_ids
from hone.models.source import find_model
from hone.models.tuning import Tuned
from hone.recipes.artifact import artifact_tensors, write_artifact
from hone.recipes.source import load_tokenizer


def write_snapshot(folder: Path, model: nn.Module, config: Config, *, about: str) -> None:
    """Write `model` as it is now to `folder`, which appears whole or not at all; one that was there is replaced.

    `model` is what a callback sees (`Training.model`), `config` the run's, `about` becomes the folder's README.
    Raises ConfigError for an adapter that took a part out of its base, DiskError.
    """
    if config.tuning.is_adapter and config.tuning.lora.init in ("pissa", "olora"):
        raise ConfigError(
            f"no copy can be written on the way with tuning.lora.init={config.tuning.lora.init}, whose beginning "
            "must be put back first",
            remedy="take the run's own artifact, or set tuning.lora.init=default",
        )
    base = find_model(config.model)
    tokenizer = load_tokenizer(config.model, base)
    template = load_template(
        tokenizer, choice=config.data.template, variables=config.data.template_kwargs
    )
    whole = cast(PreTrainedModel, model)
    tuned = Tuned(model if isinstance(model, PeftModel) else None)
    name = config.model.name
    beside = folder.with_name(f".writing-{folder.name}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            write_artifact(
                beside,
                base=base,
                base_name=os.path.realpath(name) if Path(name).expanduser().is_dir() else name,
                model=whole,
                tuned=tuned,
                weights=artifact_tensors(whole, tuned),
                tokenizer=tokenizer,
                template=template.source,
                stop_ids=stop_ids(Renderer(tokenizer, template), base),
                card=about,
            )
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise DiskError(
            f"cannot write a copy of the model: {error.strerror or error}",
            where=str(folder),
            remedy="free some space, or choose another folder",
        ) from error
