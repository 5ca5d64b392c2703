"""An adapter on disk: checked without torch, and put on its base by PEFT. It knows no run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hone.config.model_json import read_model_json
from hone.errors import ModelError

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_OTHER_FORMS = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "monteclora_config",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)
_LOAD_ERRORS = (ValueError, RuntimeError, KeyError, TypeError, OSError, IndexError)
_TAKEN_FROM_BASE = ("pissa", "olora", "corda", "lora_ga", "mica", "loftq")


def read_adapter(folder: Path) -> dict[str, Any]:
    """The adapter's config, refused where its weights are missing or pickled, or where it names code to run.

    No torch. Raises ModelError.
    """
    path = folder / CONFIG
    config = read_model_json(path)
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


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """An adapter's config as settings of `tuning.lora`. No torch.

    Raises ModelError for an adapter that cannot be trained further here.
    """
    kind = str(config.get("peft_type"))
    if kind != "LORA":
        raise ModelError(
            f"the adapter is of the kind {kind}, and only LORA is trained further",
            remedy="merge it into its base first, and name that as model.name",
        )
    odd = [key for key in _OTHER_FORMS if config.get(key)]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if odd:
        raise ModelError(
            f"the adapter is of a form that is not trained further here ({odd[0]})",
            remedy="merge it into its base first, and name that as model.name",
        )
    init = config.get("init_lora_weights", True)
    if str(init).startswith(_TAKEN_FROM_BASE):
        raise ModelError(
            f"the adapter stands on a changed base (init_lora_weights={init!r})",
            remedy="save it as a plain LoRA first: peft's save_pretrained does so with "
            "path_initial_model_for_weight_conversion",
        )
    targets: Any = config.get("target_modules")
    layers: Any = config.get("layers_to_transform")
    return {
        "r": config.get("r", 8),
        "alpha": float(config.get("lora_alpha", 8)),
        "dropout": float(config.get("lora_dropout") or 0.0),
        "target_modules": targets if isinstance(targets, str) else sorted(targets or []),
        "layers": [layers] if isinstance(layers, int) else layers,
        "rslora": bool(config.get("use_rslora")),
        "dora": bool(config.get("use_dora")),
        "init": "default",
        "pissa_niter": None,
        "modules_to_save": list(config.get("modules_to_save") or []),
    }


def rows_wanted(folder: Path) -> int:
    """How many rows the embeddings need for the tokens that the adapter brings; 0 where it brings none."""
    said: Any = read_adapter(folder).get("trainable_token_indices") or []
    lists = list(cast("dict[str, list[int]]", said).values()) if isinstance(said, dict) else [said]
    return max((index + 1 for ids in lists for index in ids), default=0)


def put_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """`model` with the adapter in `folder`, which PEFT loads, to be used and not trained.

    Raises ModelError where they do not fit: no weight of either is left out or at its start in silence.
    """
    return _load(model, folder, None)


def add_adapter(model: PreTrainedModel | PeftModel, folder: Path, name: str) -> PeftModel:
    """The adapter in `folder` under `name` beside others on one model, to be used and not trained.

    Raises ModelError where they do not fit; the model is then as it was.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    read_adapter(folder)
    adapted = model if isinstance(model, PeftModel) else None
    try:
        if adapted is None:
            config = cast(
                LoraConfig, LoraConfig.from_pretrained(str(folder), local_files_only=True)
            )
            plain = cast("PreTrainedModel", model)
            adapted = cast(PeftModel, get_peft_model(plain, config, adapter_name=name))
        result = cast(Any, adapted).load_adapter(str(folder), name, local_files_only=True)
    except _LOAD_ERRORS as error:
        _take_off(model, adapted, name)
        raise _misfit(str(error).strip().splitlines()[0], folder) from error
    adapted.eval()
    lacking = cast("list[str]", result.missing_keys)
    if any(f".{name}." in key for key in lacking):
        _take_off(model, adapted, name)
        raise _misfit("some of its weights are missing", folder)
    if strangers := _unused(adapted, folder / WEIGHTS, name):
        _take_off(model, adapted, name)
        raise _misfit(f"the base has no place for {len(strangers)} of its weights", folder)
    return adapted


def _take_off(model: PreTrainedModel | PeftModel, adapted: PeftModel | None, name: str) -> None:
    """Remove an adapter that does not fit, and PEFT's layers too where it was the first."""
    if adapted is None or name not in adapted.peft_config:
        return
    if adapted is model:
        adapted.delete_adapter(name)
    else:
        cast(Any, adapted).unload()


def stands_beside_others(folder: Path) -> bool:
    """Whether rows of this adapter may stand in one batch with rows of others: plain low-rank products alone do.

    No torch. Raises ModelError.
    """
    config = read_adapter(folder)
    odd = ("use_dora", "modules_to_save", "trainable_token_indices", "target_parameters")
    other = any(config.get(key) for key in (*odd, *_OTHER_FORMS))
    changed = str(config.get("init_lora_weights", True)).startswith(_TAKEN_FROM_BASE)
    plain = config.get("peft_type") == "LORA" and config.get("bias", "none") == "none"
    return plain and not other and not changed


def continue_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """`model` with the adapter in `folder`, to be trained further, in layers of ours.

    Raises ModelError where they do not fit, or where the adapter cannot be trained further here.
    """
    from peft import LoraConfig

    from hone.models.adapters import prepare, settle_adapter

    settings_of(read_adapter(folder))
    config = cast(LoraConfig, LoraConfig.from_pretrained(str(folder), local_files_only=True))
    adapted = _load(model, folder, prepare(config))
    settle_adapter(model, dropout=config.lora_dropout)
    return adapted


def _load(model: PreTrainedModel, folder: Path, config: LoraConfig | None) -> PeftModel:
    """By PEFT; to be trained where a config is given."""
    import warnings

    from peft import PeftModel

    read_adapter(folder)
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            adapted = PeftModel.from_pretrained(
                model,
                str(folder),
                is_trainable=config is not None,
                config=config,
                local_files_only=True,
            )
    except _LOAD_ERRORS as error:
        raise _misfit(str(error).strip().splitlines()[0], folder) from error
    if any("missing adapter keys" in str(warning.message) for warning in heard):
        raise _misfit("some of its weights are missing", folder)
    if strangers := _unused(adapted, folder / WEIGHTS):
        raise _misfit(f"the base has no place for {len(strangers)} of its weights", folder)
    return adapted


def _unused(adapted: PeftModel, path: Path, adapter: str = "default") -> list[str]:
    """Low-rank weights in the file that went nowhere."""
    import peft
    from safetensors import safe_open

    placed = cast(
        "dict[str, Any]",
        peft.get_peft_model_state_dict(adapted, adapter_name=adapter, save_embedding_layers=False),
    )
    with cast(Any, safe_open)(path, framework="pt") as file:
        names = cast("list[str]", file.keys())
    return sorted(name for name in names if "lora_" in name and name not in placed)


def _misfit(what: str, folder: Path) -> ModelError:
    return ModelError(
        f"the adapter does not fit its base: {what}",
        where=str(folder),
        remedy="name the base that it was trained on in adapter_config.json",
    )
