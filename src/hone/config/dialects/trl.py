"""TRL's SFT configuration (`trl sft --config FILE`), read as settings of ours: scripts', trainer's and model's keys in one.

Its defaults hold where it says nothing: of conversations every token is learned, of prompts with completions the
completions alone, cut at 1,024 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hone.config.dialects import hf_training
from hone.config.dialects.foreign import Foreign, Refusal, Translation
from hone.config.dialects.hf_training import Defaults, read_training
from hone.config.values import Node

LANGUAGE: Final = "TRL"

SETTINGS: Final[Mapping[str, str]] = {
    "model_name_or_path": "model.name",
    "model_revision": "model.revision",
    "dataset_config": "data.subset",
    "dataset_streaming": "data.streaming",
}
"""Keys that are settings of ours under another name."""

ADAPTER: Final[Mapping[str, str]] = {
    "lora_r": "tuning.lora.r",
    "lora_alpha": "tuning.lora.alpha",
    "use_rslora": "tuning.lora.rslora",
    "use_dora": "tuning.lora.dora",
    "lora_modules_to_save": "tuning.lora.modules_to_save",
}
"""Settings of adapters, for use_peft."""

_PACKS: Final = (
    "rows stand together in Packs either way, see nothing of each other, and nothing is padded"
)
_KERNEL: Final = "the attention kernel follows from the device and the rows, with the same result"

IDLE: Final[Mapping[str, str]] = {
    "trust_remote_code": "no code of a model's folder is ever run; a model that needs it is refused as it loads",
    "attn_implementation": _KERNEL,
    "padding_free": _PACKS,
    "packing_strategy": _PACKS,
    "eval_packing": _PACKS,
    "pad_to_multiple_of": _PACKS,
    "pad_token": _PACKS,
    "activation_offloading": "compute.offload_activations does that on a GPU",
    "ignore_bias_buffers": "ranks are started by Hone",
    "gradient_checkpointing_use_reentrant": "the run chooses it by itself, and the result is the same",
    "dtype": "trained weights are float32, and train.precision is the step's arithmetic",
    "torch_dtype": "trained weights are float32, and train.precision is the step's arithmetic",
    "dataset_batch_size": "rows are prepared ahead of training (data.workers)",
    "model_init_kwargs": "weights are read as train.precision has it",
    "dataset_kwargs": "rows are prepared ahead of training (data.workers)",
    "shuffle_dataset": "each epoch has an order of its own",
    "bnb_4bit_quant_storage": "a base in 4 bits is kept in bytes",
}
"""Keys whose object is absent here, with the reason."""

REFUSED: Final[Mapping[str, Refusal]] = {
    "use_liger": Refusal(
        "fused kernels are compute.kernels", "remove it", unless=(None, False, True)
    ),
    "lora_target_parameters": Refusal(
        "adapters stand on linear layers", "name modules by lora_target_modules"
    ),
    "lora_task_type": Refusal(
        "models here write text", "remove it", unless=(None, False, "CAUSAL_LM")
    ),
    "chat_template_path": Refusal(
        "a folder's template is not read", "write the path of a Jinja file, or a named one"
    ),
    "eos_token": Refusal(
        "the end of a turn follows from the template", "remove it; data.template names another"
    ),
    "formatting_func": Refusal(
        "no code is run on rows", "remove it; data.format and data.columns say their shape"
    ),
    "dataset_mixture": Refusal(
        "several datasets are data.sources", "remove it here, and write data.sources"
    ),
    "datasets": Refusal(
        "several datasets are data.sources", "remove it here, and write data.sources"
    ),
    "gradient_accumulation_kwargs": Refusal("it is not known here", "remove it"),
}
"""Keys that would change the result, or that must not be here."""

EXTRA: Final = (
    "dataset_name", "dataset_train_split", "dataset_test_split", "dataset_text_field", "max_length",
    "max_seq_length", "packing", "use_peft", "lora_dropout", "lora_target_modules", "load_in_4bit",
    "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "completion_only_loss",
    "assistant_only_loss", "loss_type", "gradient_checkpointing", "truncation_mode",
)  # fmt: skip
"""Keys that are read by what they mean."""

KEYS: Final = frozenset({*hf_training.KEYS, *SETTINGS, *ADAPTER, *IDLE, *REFUSED, *EXTRA})
SIGNATURE: Final = frozenset(
    {"model_name_or_path", "use_peft", "dataset_train_split", "assistant_only_loss"}
)
"""Keys by one of which a flat file is known to be TRL's, once it is not LLaMA-Factory's."""


def read(nodes: Mapping[str, Node], file: str, environment: Mapping[str, str]) -> Translation:
    """What a file of TRL comes to."""
    del environment
    theirs = Foreign(LANGUAGE, nodes, file, KEYS)
    theirs.read_tables(SETTINGS, IDLE, REFUSED)
    _read_method(theirs)
    held_out = _read_rows(theirs)
    _read_learned(theirs)
    defaults = Defaults(learning_rate=2e-5, precision="bf16")
    read_training(theirs, defaults, held_out=held_out)
    if theirs.said("gradient_checkpointing"):
        again = theirs.truth("gradient_checkpointing", default=True)
        theirs.put(
            "compute.gradient_checkpointing", "auto" if again else False, "gradient_checkpointing"
        )
    return theirs.finish()


def _read_method(theirs: Foreign) -> None:
    adapts = theirs.truth("use_peft")
    four, eight = theirs.truth("load_in_4bit"), theirs.truth("load_in_8bit")
    if (four or eight) and not adapts:
        theirs.complain(
            "load_in_4bit", "a quantised base cannot train itself", "add use_peft: true"
        )
    method = "qlora" if adapts and (four or eight) else "lora" if adapts else "full"
    theirs.put("tuning.method", method, "use_peft")
    dropout = theirs.number("lora_dropout", 0.05)
    targets = theirs.words("lora_target_modules")
    kind, nested = theirs.text("bnb_4bit_quant_type", "nf4"), theirs.truth("use_bnb_nested_quant")
    if not adapts:
        for key in (*ADAPTER, "lora_dropout", "lora_target_modules"):
            theirs.idle(key, "use_peft is not set", unless=(None,))
        return
    theirs.put("tuning.lora.r", 16, "lora_r")
    theirs.put("tuning.lora.alpha", 32.0, "lora_alpha")
    theirs.map(ADAPTER)
    theirs.put("tuning.lora.dropout", dropout, "lora_dropout")
    if targets and targets != ["all-linear"]:
        theirs.put("tuning.lora.target_modules", targets, "lora_target_modules")
    elif not targets:
        theirs.remark(
            "lora_target_modules: every linear layer; PEFT has a choice of its own for each family"
        )
    if method == "qlora":
        theirs.put("tuning.quantization.bits", 4 if four else 8, "load_in_4bit")
    if method == "qlora" and four:
        theirs.put("tuning.quantization.quant_type", kind, "bnb_4bit_quant_type")
        theirs.put("tuning.quantization.double_quant", nested, "use_bnb_nested_quant")


def _read_rows(theirs: Foreign) -> bool:
    name = theirs.text("dataset_name")
    if not name:
        theirs.complain(
            "dataset_name", "dataset_name: no rows to train on", "name a file, a folder or a hub id"
        )
    theirs.put("data.path", name, "dataset_name")
    if (split := theirs.text("dataset_train_split", "train")) != "train":
        theirs.put("data.split", split, "dataset_train_split")
    test = theirs.text("dataset_test_split", "test")
    evaluates = theirs.take("eval_strategy") not in (None, False, "no")
    if evaluates and test in ("validation", "test"):
        theirs.put("data.validation_path", name, "dataset_test_split")
        theirs.remark(
            f"dataset_test_split: {test}: the split `validation` is held out, or `test` where there is none"
        )
    if (column := theirs.text("dataset_text_field", "text")) != "text":
        theirs.put("data.columns", {"text": column}, "dataset_text_field")
    return evaluates


def _read_learned(theirs: Foreign) -> None:
    length = (
        theirs.take("max_length") if theirs.said("max_length") else theirs.take("max_seq_length")
    )
    theirs.take("max_seq_length")
    theirs.take("max_length")
    named = theirs.said("max_length") or theirs.said("max_seq_length")
    theirs.put("data.max_length", length if named else 1024, "max_length")
    theirs.put("data.too_long", "cut", "max_length")
    if (side := theirs.text("truncation_mode", "keep_start")) != "keep_start":
        theirs.complain(
            "truncation_mode",
            f"truncation_mode: {side}: the beginning of a row is kept",
            "remove it",
        )
    if theirs.truth("packing"):
        theirs.remark(
            "packing: a step has per_device_train_batch_size x gradient_accumulation_steps rows; there as many packs"
        )
    answers = theirs.truth("assistant_only_loss")
    completions = theirs.take("completion_only_loss")
    if answers or completions in (True, "true"):
        theirs.put(
            "data.train_on", "all", "assistant_only_loss" if answers else "completion_only_loss"
        )
    else:
        theirs.put("data.train_on", "everything", "assistant_only_loss")
        theirs.remark(
            "assistant_only_loss is not set: every token of a conversation is learned, as there; of rows with a prompt "
            "and a completion TRL learns the completion alone: for those set data.train_on=all"
        )
    loss = theirs.text("loss_type", "nll")
    if loss not in ("nll", "dft"):
        theirs.complain("loss_type", f"loss_type: {loss} is not offered", "allowed: nll, dft")
    elif loss != "nll":
        theirs.put("train.loss", loss, "loss_type")
