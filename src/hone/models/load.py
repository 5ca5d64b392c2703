"""Loading weights: a folder to a causal language model with no noise of its own, safely.

It knows no rows and no training settings beyond the dtype.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from hone.errors import ModelError
from hone.models import attention, facts, gpu_attention
from hone.models.quantization import (
    is_quantized,
    loading_config,
    require_bitsandbytes,
    stored_quantization,
)
from hone.models.source import check_weights, read_config

if TYPE_CHECKING:
    from hone.config.sections import QuantizationSection


@dataclass(frozen=True)
class Loaded:
    """A model, and what was changed or ignored on the way, in words."""

    model: PreTrainedModel
    notices: tuple[str, ...]


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Keep transformers' own log lines and bars off the screen; what matters is said by us."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def load_config(folder: Path) -> Any:
    """The model's config with every dropout at 0 and the router's auxiliary loss off."""
    raw = read_config(folder)
    with quiet():
        try:
            config = cast(
                Any,
                AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
            )
        except (ValueError, KeyError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise ModelError(
                f"transformers does not know this model: {first}",
                where=str(folder / "config.json"),
                remedy="models that bring their own code are not run; use a supported model_type",
            ) from error
    for part in {
        id(config): config,
        id(config.get_text_config()): config.get_text_config(),
    }.values():
        for key in facts.dropouts(raw):
            if hasattr(part, key):
                setattr(part, key, 0.0)
        if getattr(part, "output_router_logits", False):
            part.output_router_logits = False
    return config


def stored_dtype(folder: Path) -> torch.dtype:
    """The type in which the folder's weights are kept; float32 where its config does not say."""
    inner = facts.text_config(read_config(folder))
    kept = getattr(torch, str(inner.get("dtype") or inner.get("torch_dtype") or "float32"), None)
    return kept if isinstance(kept, torch.dtype) and kept.is_floating_point else torch.float32


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype,
    attn_implementation: str | None = None,
    quantization: QuantizationSection | None = None,
    device: torch.device | None = None,
) -> Loaded:
    """Load a causal language model from safetensors, its linear layers quantised where `quantization` says how.

    They are rounded from the numbers in `dtype`; a folder that is quantised already stays as it is. Weights are
    read straight onto `device` (None: the CPU).

    Raises ModelError where weights are missing, pickled, damaged or of other shapes than the config
    says: nothing is ever left at its random initial value in silence.
    """
    raw = read_config(folder)
    notices = [
        f"{name} in the model folder is a pickle and is ignored" for name in check_weights(folder)
    ]
    config = load_config(folder)
    noisy = facts.dropouts(raw)
    if noisy:
        names = ", ".join(f"{key}={value:g}" for key, value in noisy.items())
        notices.append(f"the base model's dropout is set to 0 ({names})")
    if raw.get("output_router_logits"):
        notices.append("the router's auxiliary loss is off: it does not add up over rows")
    attention.register()
    gpu_attention.register()
    stored = stored_quantization(raw)
    if stored is not None or quantization is not None:
        require_bitsandbytes()
    options: dict[str, Any] = {}
    if stored is None and quantization is not None:
        options["quantization_config"] = loading_config(quantization)
    on_gpu = device is not None and device.type == "cuda"
    if stored is not None or quantization is not None or on_gpu:
        options["device_map"] = {"": device if on_gpu else "cpu"}
    with quiet():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=attn_implementation,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
        except (ValueError, RuntimeError, OSError, ImportError) as error:
            first = str(error).strip().splitlines()[0]
            raise ModelError(f"cannot load the model: {first}", where=str(folder)) from error
    model, report = cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)
    missing: list[str] = sorted(report.get("missing_keys") or ())
    wrong = sorted(str(m[0]) for m in report.get("mismatched_keys") or ())
    if missing or wrong:
        names = ", ".join((missing + wrong)[:3])
        raise ModelError(
            f"{len(missing) + len(wrong)} weights are missing or of another shape: {names}",
            where=str(folder),
            remedy="fetch the model again, or mend its config.json",
        )
    if options:
        from hone.models.quantized import settle

        notices.append(_quantized_share(model, settle(model)))
    return Loaded(model, tuple(notices))


def _quantized_share(model: PreTrainedModel, layers: int) -> str:
    """How much of the model is held in fewer bits."""
    total = sum(
        parameter.numel() for parameter in model.parameters() if parameter.is_floating_point()
    )
    few = sum(
        cast(Any, module).in_features * cast(Any, module).out_features
        for module in model.modules()
        if is_quantized(module)
    )
    share = few / max(1, few + total)
    return f"{layers} linear layers are quantised: {share:.0%} of the weights; the others are held as they are"


def takes_packs(model: PreTrainedModel) -> bool:
    """Whether the family asks the attention interface, so that our attention can serve it."""
    return bool(getattr(model, "_supports_attention_backend", False))
