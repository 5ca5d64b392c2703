"""LLaMA-Factory's training YAML, read as settings of ours: every key is taken, told as having no object here, or refused.

Its defaults hold where it says nothing (8 rows a device, 5e-5, linear, rank 8). Numbers come from transformers'
TrainingArguments (`hf_training.py`), datasets from its `dataset_info.json` (`dataset_info.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hone.config.dialects import hf_training
from hone.config.dialects.dataset_info import Dataset, read_datasets
from hone.config.dialects.foreign import Foreign, Translation
from hone.config.dialects.hf_training import Defaults, read_training
from hone.config.dialects.llamafactory_keys import (
    ADAPTER,
    DIFFERS,
    EXTRA,
    IDLE,
    REFUSED,
    SETTINGS,
    TEMPLATES,
)
from hone.config.values import Node
from hone.errors import ConfigError, nearest

LANGUAGE: Final = "LLaMA-Factory"
KEYS: Final = frozenset({*hf_training.KEYS, *SETTINGS, *ADAPTER, *IDLE, *REFUSED, *EXTRA})
SIGNATURE: Final = frozenset(
    {
        "stage",
        "finetuning_type",
        "cutoff_len",
        "dataset_dir",
        "template",
        "lora_rank",
        "export_dir",
        "val_size",
    }
)
"""Keys by one of which a flat file is known to be LLaMA-Factory's."""

_METHODS: Final = {"lora": "lora", "freeze": "freeze", "full": "full"}
_BITS: Final = (4, 8)


def read(nodes: Mapping[str, Node], file: str, environment: Mapping[str, str]) -> Translation:
    """What a LLaMA-Factory training file comes to. `nodes` are its keys; `environment` says whether it uses Ray."""
    theirs = Foreign(LANGUAGE, nodes, file, KEYS)
    merges = theirs.said("export_dir") and not theirs.said("stage")
    stage = _stage(theirs, merges=merges)
    theirs.read_tables(SETTINGS, IDLE, REFUSED)
    _read_model(theirs)
    _read_method(theirs)
    _read_rows(theirs, stage, needed=not merges)
    _read_learned(theirs, stage)
    held_out = bool({"data.validation_split", "data.validation_path"} & set(theirs.made.values))
    read_training(theirs, Defaults(), held_out=held_out)
    _read_rest(theirs, environment)
    return theirs.finish()


def _stage(theirs: Foreign, *, merges: bool) -> str:
    stage = theirs.text("stage", "sft")
    if stage not in ("sft", "pt"):
        theirs.complain(
            "stage",
            f"stage: {stage} is not among what Hone trains: it learns from examples (sft) and from texts (pt)",
            "use stage: sft on the preferred answers, or LLaMA-Factory for this stage: `--engine llamafactory`",
        )
    if not theirs.truth("do_train", default=True) and not merges:
        theirs.complain(
            "do_train", "do_train: false leaves nothing to do here", "remove it, or write true"
        )
    return stage


def _read_model(theirs: Foreign) -> None:
    if (revision := theirs.text("model_revision", "main")) != "main":
        theirs.put("model.revision", revision, "model_revision")
    adapters = theirs.words("adapter_name_or_path")
    if len(adapters) > 1:
        theirs.complain(
            "adapter_name_or_path",
            "adapter_name_or_path names several adapters",
            "merge all but the last one first",
        )
    elif adapters:
        theirs.put("model.adapter", adapters[0], "adapter_name_or_path")
    for key, name in (("add_tokens", "new_tokens"), ("add_special_tokens", "new_special_tokens")):
        if words := theirs.words(key):
            theirs.put(f"model.{name}", words, key)
            theirs.put("model.new_token_init", "mean", key)
    if (begins := theirs.text("init_special_tokens")) not in ("", "noise_init"):
        theirs.complain(
            "init_special_tokens",
            f"init_special_tokens: {begins} is not offered",
            "remove it; see model.new_token_init",
        )


def _read_method(theirs: Foreign) -> None:
    said = theirs.text("finetuning_type", "lora")
    method = _METHODS.get(said)
    if method is None:
        theirs.complain(
            "finetuning_type",
            f"finetuning_type: {said} is not among the methods here",
            nearest(said, _METHODS),
        )
        method = "lora"
    bits = theirs.whole("quantization_bit", 0)
    if bits:
        method = _quantized(theirs, method, bits)
    else:
        for key in ("quantization_method", "quantization_type", "double_quantization"):
            theirs.idle(key, "quantization_bit is not set", unless=(None,))
    theirs.put("tuning.method", method, "finetuning_type")
    _read_adapter(theirs, used=method in ("lora", "qlora"))
    _read_frozen(theirs, used=method == "freeze")


def _quantized(theirs: Foreign, method: str, bits: int) -> str:
    way = theirs.text("quantization_method", "bnb")
    if way not in ("bnb", "bitsandbytes"):
        theirs.complain(
            "quantization_method",
            f"quantization_method: {way} is not offered",
            "use bnb (bitsandbytes)",
        )
    if bits not in _BITS:
        theirs.complain(
            "quantization_bit", f"quantization_bit: {bits} bits are not offered", "allowed: 4, 8"
        )
        return method
    if method != "lora":
        theirs.complain(
            "quantization_bit", f"quantization_bit and finetuning_type: {method} exclude each other",
            "use finetuning_type: lora",
        )  # fmt: skip
        return method
    theirs.put("tuning.quantization.bits", bits, "quantization_bit")
    theirs.map({"quantization_type": "tuning.quantization.quant_type"})
    if theirs.said("double_quantization"):
        theirs.put(
            "tuning.quantization.double_quant",
            theirs.truth("double_quantization", default=True),
            "double_quantization",
        )
    return "qlora"


def _read_adapter(theirs: Foreign, *, used: bool) -> None:
    keys = (
        *ADAPTER,
        "lora_rank",
        "lora_alpha",
        "lora_target",
        "additional_target",
        "pissa_init",
        "pissa_iter",
    )
    if not used:
        for key in keys:
            theirs.idle(key, "finetuning_type is not lora")
        return
    theirs.map(ADAPTER)
    rank = theirs.whole("lora_rank", 8)
    theirs.put("tuning.lora.r", rank, "lora_rank")
    theirs.put("tuning.lora.alpha", theirs.number("lora_alpha", 0) or 2.0 * rank, "lora_alpha")
    targets = theirs.words("lora_target")
    whole = not targets or targets == ["all"]
    theirs.put("tuning.lora.target_modules", "all-linear" if whole else targets, "lora_target")
    if more := theirs.words("additional_target"):
        names = {"embed_tokens": "embeddings", "lm_head": "head"}
        theirs.put(
            "tuning.lora.modules_to_save",
            [names.get(one, one) for one in more],
            "additional_target",
        )
    rounds = theirs.whole("pissa_iter", 16)
    if theirs.truth("pissa_init"):
        theirs.put("tuning.lora.init", "pissa", "pissa_init")
        theirs.put("tuning.lora.pissa_niter", rounds if rounds >= 0 else None, "pissa_iter")


def _read_frozen(theirs: Foreign, *, used: bool) -> None:
    keys = ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules")
    if not used:
        for key in keys:
            theirs.idle(key, "finetuning_type is not freeze")
        return
    theirs.put("tuning.freeze.trainable_layers", theirs.whole(keys[0], 2), keys[0])
    modules = theirs.words(keys[1])
    theirs.put(
        "tuning.freeze.trainable_modules", "all" if modules in ([], ["all"]) else modules, keys[1]
    )
    if more := theirs.words(keys[2]):
        theirs.put("tuning.freeze.extra_modules", more, keys[2])


def _read_rows(theirs: Foreign, stage: str, *, needed: bool) -> None:
    names, folder = theirs.words("dataset"), theirs.text("dataset_dir", "data")
    probabilities = theirs.words("interleave_probs")
    mixing = theirs.text("mix_strategy", "concat")
    if not names and needed:
        theirs.complain(
            "dataset", "dataset: no rows to train on", "name datasets of dataset_info.json"
        )
    found = _datasets(theirs, "dataset", names, folder, stage)
    if mixing != "concat" and len(found) > 1:
        weights = [float(one) for one in probabilities] or [1.0] * len(found)
        for one, weight in zip(found, weights, strict=False):
            one.source["weight"] = weight
        theirs.remark(
            f"mix_strategy: {mixing}: an epoch has as many rows as all datasets together, drawn by weight; there it "
            "ends where a dataset does"
        )
    if len(found) == 1 and "max_rows" not in found[0].source:
        _put_only(theirs, found[0])
    elif found:
        theirs.put("data.sources", [one.source for one in found], "dataset")
    _read_held_out(theirs, folder, stage, [one.source for one in found])
    theirs.put("data.bad_rows", "drop", "dataset")
    if theirs.truth("streaming"):
        theirs.put("data.streaming", True, "streaming")


def _datasets(
    theirs: Foreign, key: str, names: list[str], folder: str, stage: str
) -> list[Dataset]:
    if not names or stage not in ("sft", "pt"):
        return []
    try:
        found = read_datasets(names, folder, stage=stage)
    except ConfigError as fault:
        theirs.complain(key, fault.what, fault.remedy, where=fault.where)
        return []
    for one in found:
        theirs.made.remarks += one.remarks
    return found


def _put_only(theirs: Foreign, found: Dataset) -> None:
    for key in ("path", "format", "columns", "tags", "split", "subset"):
        if key in found.source:
            theirs.put(f"data.{key}", found.source[key], "dataset")


def _read_held_out(
    theirs: Foreign, folder: str, stage: str, training: list[dict[str, object]]
) -> None:
    held_out = _datasets(theirs, "eval_dataset", theirs.words("eval_dataset"), folder, stage)
    size = theirs.number("val_size", 0.0)
    if size >= 1:
        theirs.complain(
            "val_size",
            f"val_size: {size:g} rows are held out there; here it is a share of them",
            "write a share such as 0.1, or hold rows out with `hone split`, and name them by eval_dataset",
        )
    elif size:
        theirs.put("data.validation_split", size, "val_size")
    if len(held_out) > 1:
        theirs.complain(
            "eval_dataset", "eval_dataset names several datasets", "join them into one file"
        )
    elif held_out:
        theirs.put("data.validation_path", held_out[0].source["path"], "eval_dataset")
        same = ("format", "columns", "tags")
        if any(held_out[0].source.get(key) != one.get(key) for one in training for key in same):
            theirs.complain(
                "eval_dataset", "eval_dataset has rows of another shape than dataset",
                "convert it: `hone convert` writes rows in another shape",
            )  # fmt: skip


def _read_learned(theirs: Foreign, stage: str) -> None:
    """What of a row is trained, by which template, and what happens to a long one."""
    name = theirs.text("template")
    ours = TEMPLATES.get(name)
    if ours is not None and stage == "sft":
        theirs.put("data.template", ours, "template")
        if name in DIFFERS:
            theirs.remark(f"template: {name}: {DIFFERS[name]}")
    elif name and stage == "sft":
        theirs.complain(
            "template",
            f"template: {name} is not among the templates here",
            f"remove it, and the model's own template is used; or {nearest(name, TEMPLATES)}",
        )
    elif stage == "sft" and theirs.said("stage"):
        theirs.remark("template: none is named: the model's own is used, as LLaMA-Factory tries to")
    if theirs.said("enable_thinking"):
        thinks = theirs.truth("enable_thinking", default=True)
        theirs.put("data.template_kwargs", {"enable_thinking": thinks}, "enable_thinking")
    prompts, last = theirs.truth("train_on_prompt"), theirs.truth("mask_history")
    if prompts and last:
        theirs.complain(
            "mask_history",
            "mask_history and train_on_prompt exclude each other",
            "remove one of them",
        )
    elif prompts:
        theirs.put("data.train_on", "everything", "train_on_prompt")
    elif last:
        theirs.put("data.train_on", "last", "mask_history")
    if stage == "sft":
        theirs.put("data.train_separators", True, "stage")
    _read_lengths(theirs, stage, last=last)


def _read_lengths(theirs: Foreign, stage: str, *, last: bool) -> None:
    packs = theirs.truth("packing", default=stage == "pt")
    neat = theirs.truth("neat_packing")
    length = theirs.whole("cutoff_len", 2048) - (packs or neat)
    theirs.put("data.max_length", length, "cutoff_len")
    policy = "cut" if stage == "pt" else "oldest" if last else "share"
    theirs.put("data.too_long", policy, "cutoff_len")
    if neat:
        theirs.remark(
            "neat_packing: rows stand together in Packs either way, and see nothing of each other"
        )
    elif packs and stage == "sft":
        theirs.remark(
            "packing: rows that stand together see nothing of each other here; there, without neat_packing, they do"
        )
    if packs or neat:
        theirs.remark(
            "packing: a step has per_device_train_batch_size x gradient_accumulation_steps rows; there as many packs "
            f"of {length} tokens, which hold more rows: raise train.batch_size for steps of their size"
        )
    if packs and stage == "pt":
        theirs.remark(
            "stage: pt: each text is a row of its own, cut at cutoff_len; there texts are joined and cut into blocks"
        )


def _read_rest(theirs: Foreign, environment: Mapping[str, str]) -> None:
    if theirs.truth("disable_gradient_checkpointing"):
        theirs.put("compute.gradient_checkpointing", False, "disable_gradient_checkpointing")
    if theirs.truth("use_muon"):
        theirs.put("train.optimizer", "muon", "use_muon")
    if theirs.truth("use_dft_loss"):
        theirs.put("train.loss", "dft", "use_dft_loss")
    if theirs.truth("disable_shuffling"):
        theirs.put("data.shuffle", False, "disable_shuffling")
    ranks = theirs.whole("ray_num_workers", 1)
    if theirs.said("ray_num_workers"):
        if environment.get("USE_RAY", "").lower() in ("1", "true", "y"):
            theirs.put("compute.launcher", "ray", "ray_num_workers")
            theirs.put("compute.nproc", ranks, "ray_num_workers")
        else:
            theirs.remark(
                "ray_num_workers has no effect: USE_RAY=1 is not set (or say compute.launcher=ray compute.nproc)"
            )
