"""Whether and how a base is quantised: what its config says, what a section asks, what is needed for it.

It knows no adapters. bitsandbytes is imported only where a base is quantised.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, cast

from hone.errors import ConfigError, EnvironmentFault, ModelError

if TYPE_CHECKING:
    from torch import nn
    from transformers import BitsAndBytesConfig, PreTrainedModel

    from hone.config.sections import QuantizationSection


def require_bitsandbytes() -> None:
    """Raise EnvironmentFault where bitsandbytes is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise EnvironmentFault(
            "a quantised base needs the package bitsandbytes, which is not installed",
            remedy="pip install 'hone[quantize]', or set tuning.method=lora",
        )


def stored_quantization(config: dict[str, Any]) -> QuantizationSection | None:
    """How the weights of a model folder are quantised already; None where they are not.

    Raises ModelError for a kind that bitsandbytes did not make.
    """
    said = config.get("quantization_config")
    if not isinstance(said, dict):
        return None
    about = cast("dict[str, Any]", said)
    method = str(about.get("quant_method") or "bitsandbytes")
    if "bitsandbytes" not in method:
        raise ModelError(
            f"the model is quantised by {method}, which is not read here",
            remedy="use the model's unquantised form; tuning.method=qlora quantises it as it loads",
        )
    from hone.config.sections import QuantizationSection

    if about.get("load_in_8bit"):
        return QuantizationSection(bits=8)
    quant_type = "fp4" if about.get("bnb_4bit_quant_type") == "fp4" else "nf4"
    return QuantizationSection(
        quant_type=quant_type, double_quant=bool(about.get("bnb_4bit_use_double_quant"))
    )


def agree(stored: QuantizationSection, asked: QuantizationSection) -> None:
    """Raise ConfigError where a base that is quantised already is asked for in another form."""
    for key, value in stored:
        if stored.bits == 8 and key != "bits":
            continue
        if getattr(asked, key) != value:
            raise ConfigError(
                f"the base is quantised already, with {key}={value}",
                where=f"tuning.quantization.{key}={getattr(asked, key)}",
                remedy=f"set tuning.quantization.{key}={value}, or name the unquantised base",
            )


def loading_config(section: QuantizationSection) -> BitsAndBytesConfig:
    """What makes transformers quantise the linear layers of a model, but for its head, as it loads."""
    from transformers import BitsAndBytesConfig

    if section.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=section.quant_type,
        bnb_4bit_use_double_quant=section.double_quant,
    )


def quantize_linears(model: PreTrainedModel, section: QuantizationSection) -> int:
    """Quantise the linear layers of a model in memory, but for its head; returns how many."""
    from torch import nn

    from hone.models.parts import head_of
    from hone.models.quantized import quantize

    head = head_of(model)
    found = 0
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module) is nn.Linear and module is not head:
                setattr(parent, name, quantize(module, section))
                found += 1
    setattr(model, f"is_loaded_in_{section.bits}bit", True)
    return found


def is_quantized(module: nn.Module) -> bool:
    """Whether a layer holds its weight in fewer bits than it multiplies with."""
    return hasattr(type(module), "dense_weight")
