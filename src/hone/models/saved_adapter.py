"""An adapter on disk: checked without torch, and put on its base by PEFT. It knows no run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hone.errors import ModelError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def read_adapter(folder: Path) -> dict[str, Any]:
    """The adapter's config, refused where its weights are missing or pickled, or where it names code to run.

    No torch. Raises ModelError.
    """
    path = folder / CONFIG
    try:
        said: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read {CONFIG}: {error}", where=str(folder), remedy="restore the file"
        ) from error
    config = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    if not isinstance(config.get("base_model_name_or_path"), str):
        raise ModelError(
            f"{CONFIG} does not name its base model",
            where=str(path),
            remedy="set base_model_name_or_path to the base's folder or hub id",
        )
    if config.get("megatron_config") is not None:
        raise ModelError(
            f"{CONFIG} asks for a module to be imported (megatron_config)",
            where=str(path),
            remedy="remove the key, or use the adapter from its first source",
        )
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise ModelError(
            "the adapter's weights are pickled: loading them could run code"
            if pickled
            else f"the adapter has no {WEIGHTS}",
            where=str(folder),
            remedy="convert them to safetensors where they come from; Hone never opens a pickle"
            if pickled
            else "fetch the adapter again",
        )
    return config


def put_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """`model` with the adapter in `folder`, which PEFT loads.

    Raises ModelError where they do not fit: no weight of either is left out or at its start in silence.
    """
    import warnings

    from peft import PeftModel

    read_adapter(folder)
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(
                model, str(folder), is_trainable=False, local_files_only=True
            )
    except (ValueError, RuntimeError, KeyError, TypeError, OSError) as error:
        raise _misfit(str(error).strip().splitlines()[0], folder) from error
    if any("missing adapter keys" in str(warning.message) for warning in heard):
        raise _misfit("some of its weights are missing", folder)
    if strangers := _unused(adapted, folder / WEIGHTS):
        raise _misfit(f"the base has no place for {len(strangers)} of its weights", folder)
    return adapted


def _unused(adapted: PeftModel, path: Path) -> list[str]:
    """Low-rank weights in the file that went nowhere."""
    import peft
    from safetensors import safe_open

    placed = cast("dict[str, Any]", peft.get_peft_model_state_dict(adapted))
    with cast(Any, safe_open)(path, framework="pt") as file:
        names = cast("list[str]", file.keys())
    return sorted(name for name in names if "lora_" in name and name not in placed)


def _misfit(what: str, folder: Path) -> ModelError:
    return ModelError(
        f"the adapter does not fit its base: {what}",
        where=str(folder),
        remedy="name the base that it was trained on in adapter_config.json",
    )
