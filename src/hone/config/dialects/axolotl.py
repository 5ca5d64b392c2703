"""Axolotl's YAML, read as settings of ours: what fine-tunes a model of text on examples; the rest is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from hone.config.dialects.foreign import Foreign, Refusal, Translation
from hone.config.values import Node
from hone.errors import nearest

LANGUAGE: Final = "Axolotl"

SETTINGS: Final[Mapping[str, str]] = {
    "base_model": "model.name",
    "revision_of_model": "model.revision",
    "lora_model_dir": "model.adapter",
    "num_epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "learning_rate": "train.learning_rate",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.max_grad_norm",
    "neftune_noise_alpha": "train.neftune_alpha",
    "loraplus_lr_ratio": "train.lora_plus_ratio",
    "save_total_limit": "train.save_total_limit",
    "output_dir": "output.dir",
    "deepspeed": "compute.deepspeed",
    "early_stopping_patience": "train.early_stop",
}
"""Keys that are settings of ours under another name."""

ADAPTER: Final[Mapping[str, str]] = {
    "lora_r": "tuning.lora.r",
    "lora_alpha": "tuning.lora.alpha",
    "lora_dropout": "tuning.lora.dropout",
    "peft_use_rslora": "tuning.lora.rslora",
    "peft_use_dora": "tuning.lora.dora",
    "lora_modules_to_save": "tuning.lora.modules_to_save",
}
"""Settings of adapters, for adapter: lora or qlora."""

_KERNEL: Final = "kernels follow from the device and the rows, with the same result"
_PACKS: Final = (
    "rows stand together in Packs either way, see nothing of each other, and nothing is padded"
)
_AHEAD: Final = "rows are prepared ahead of training, and cached by content"
_TYPES: Final = "the tokenizer and the model's class follow from the model's own files"

IDLE: Final[Mapping[str, str]] = {
    "trust_remote_code": "no code of a model's folder is ever run; a model that needs it is refused as it loads",
    "flash_attention": _KERNEL,
    "xformers_attention": _KERNEL,
    "sdp_attention": _KERNEL,
    "flex_attention": _KERNEL,
    "eager_attention": _KERNEL,
    "attn_implementation": _KERNEL,
    "tf32": _KERNEL,
    "torch_compile": _KERNEL,
    "liger_rope": _KERNEL,
    "liger_rms_norm": _KERNEL,
    "liger_glu_activation": _KERNEL,
    "liger_fused_linear_cross_entropy": _KERNEL,
    "lora_mlp_kernel": _KERNEL,
    "lora_qkv_kernel": _KERNEL,
    "lora_o_kernel": _KERNEL,
    "plugins": _KERNEL,
    "gradient_checkpointing_kwargs": _KERNEL,
    "sample_packing": _PACKS,
    "eval_sample_packing": _PACKS,
    "pad_to_sequence_len": _PACKS,
    "group_by_length": _PACKS,
    "sample_packing_eff_est": _PACKS,
    "multipack_real_batches": _PACKS,
    "dataset_prepared_path": _AHEAD,
    "dataset_processes": _AHEAD,
    "dataset_num_proc": _AHEAD,
    "dataloader_num_workers": _AHEAD,
    "dataloader_pin_memory": _AHEAD,
    "shuffle_merged_datasets": _AHEAD,
    "model_type": _TYPES,
    "tokenizer_type": _TYPES,
    "is_llama_derived_model": _TYPES,
    "is_mistral_derived_model": _TYPES,
    "tokenizer_use_fast": _TYPES,
    "logging_steps": "each step is in the run's events",
    "eval_batch_size": "held-out rows stand in Packs, as many as fit",
    "eval_table_size": "train.sample_steps shows what the model writes while it trains",
    "eval_max_new_tokens": "train.sample_tokens is the longest sample",
    "save_safetensors": "weights are always safetensors",
    "save_only_model": "a checkpoint is always whole, so that the same command resumes",
    "auto_resume_from_checkpoints": "the same command always resumes",
    "local_rank": "ranks are started by Hone (compute.nproc)",
    "ddp_timeout": "a rank that hangs ends the run within a minute",
    "ddp": "compute.strategy says how ranks hold the model",
    "fsdp_config": "compute.strategy=fsdp wraps the layers of the model by itself",
    "strict": "an unknown key is always an error",
    "debug": "`hone preview` shows rows token by token",
    "wandb_watch": "the run's numbers are told",
    "wandb_log_model": "output.track.log_model sends the finished model",
    "float32": "train.precision is fp32 where bf16 is off",
}
"""Keys whose object is absent here, with the reason."""

_OTHER: Final = Refusal(
    "it belongs to training that Hone does not do", "remove it: Hone learns from examples"
)

REFUSED: Final[Mapping[str, Refusal]] = {
    "fp16": Refusal("float16 gradients vanish without loss scaling", "write bf16: true instead"),
    "float16": Refusal("float16 gradients vanish without loss scaling", "write bf16: true instead"),
    "bfloat16": Refusal(
        "weights kept in bfloat16 alone lose small updates", "write bf16: true instead"
    ),
    "gptq": Refusal(
        "a base that GPTQ quantised is not read", "name its unquantised form, with adapter: qlora"
    ),
    "rl": _OTHER,
    "reward_model": _OTHER,
    "process_reward_model": _OTHER,
    "reinforcement_learning": _OTHER,
    "special_tokens": Refusal(
        "the tokenizer's own tokens are used", "remove it; model.new_special_tokens adds some"
    ),
    "lora_target_parameters": Refusal("adapters stand on linear layers", "use lora_target_modules"),
    "lora_fan_in_fan_out": Refusal("it follows from the model", "remove it"),
    "unfrozen_parameters": Refusal(
        "layers are named by number", "use tuning.method=freeze and tuning.freeze"
    ),
    "s2_attention": Refusal("shifted sparse attention changes what is computed", "remove it"),
    "rope_scaling": Refusal(
        "the model's own positions are used", "write it into the model's config.json"
    ),
    "overrides_of_model_config": Refusal(
        "the model's own configuration is used", "write it into config.json"
    ),
    "sequence_parallel_degree": Refusal(
        "no row is split among ranks", "use deepspeed (ZeRO-3) or fsdp"
    ),
    "context_parallel_size": Refusal(
        "no row is split among ranks", "use deepspeed (ZeRO-3) or fsdp"
    ),
    "tensor_parallel_size": Refusal(
        "no matrix is split among ranks", "use deepspeed (ZeRO-3) or fsdp"
    ),
    "hub_model_id": Refusal(
        "training publishes nothing", "remove it; `hone push` asks before it publishes"
    ),
    "hub_strategy": Refusal(
        "training publishes nothing", "remove it; `hone push` asks before it publishes"
    ),
    "push_dataset_to_hub": Refusal("training publishes nothing", "remove it"),
    "pretraining_dataset": Refusal("texts are a dataset of type completion", "name it in datasets"),
    "relora_steps": Refusal("ReLoRA is not offered", "remove it"),
    "noisy_embedding_alpha": Refusal(
        "its other name is neftune_noise_alpha", "write neftune_noise_alpha"
    ),
    "hf_use_auth_token": Refusal(
        "a secret has no place in a file", "set HF_TOKEN, and remove it", unless=(None, False)
    ),
    "resume_from_checkpoint": Refusal(
        "a run resumes in its own folder", "remove it: the same command goes on"
    ),
}
"""Keys that would change the result, or that must not be here."""

EXTRA: Final = (
    "datasets", "test_datasets", "val_set_size", "adapter", "load_in_4bit", "load_in_8bit", "lora_target_linear",
    "lora_target_modules", "sequence_len", "excess_length_strategy", "micro_batch_size",
    "gradient_accumulation_steps", "optimizer", "lr_scheduler", "cosine_min_lr_ratio", "warmup_steps",
    "warmup_ratio", "bf16", "seed", "train_on_inputs", "chat_template", "chat_template_jinja", "evals_per_epoch",
    "eval_steps", "saves_per_epoch", "save_steps", "save_strategy", "eval_strategy", "gradient_checkpointing",
    "wandb_project", "wandb_entity", "wandb_name", "wandb_run_id", "wandb_mode", "use_wandb", "mlflow_tracking_uri",
    "mlflow_experiment_name", "use_tensorboard", "fsdp", "adam_beta1", "adam_beta2", "adam_epsilon", "tokens",
)  # fmt: skip
"""Keys that are read by what they mean."""

KEYS: Final = frozenset({*SETTINGS, *ADAPTER, *IDLE, *REFUSED, *EXTRA})
SIGNATURE: Final = frozenset(
    {"micro_batch_size", "sequence_len", "val_set_size", "sample_packing", "datasets"}
)
"""Keys by one of which a flat file is known to be Axolotl's."""

_OPTIMIZERS: Final = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw_32bit": "paged_adamw",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "lion_8bit": "lion_8bit",
    "muon": "muon",
}
_SCHEDULES: Final = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
_TEMPLATES: Final = {
    "tokenizer_default": None,
    "tokenizer_default_fallback_chatml": None,
    "alpaca": "alpaca",
    "chatml": "chatml",
    "gemma": "gemma",
    "llama3": "llama3",
    "mistral_v1": "mistral",
    "qwen_25": "qwen",
    "qwen3": "qwen3",
}
_TYPES_OF_ROWS: Final = {
    "alpaca": "alpaca",
    "chat_template": "messages",
    "completion": "text",
    "sharegpt": "sharegpt",
}
_ROW_KEYS: Final = (
    "path", "type", "split", "name", "data_files", "ds_type", "field", "field_messages", "message_property_mappings",
    "message_field_role", "message_field_content", "roles_to_train", "train_on_eos", "chat_template", "revision",
)  # fmt: skip


def read(nodes: Mapping[str, Node], file: str, environment: Mapping[str, str]) -> Translation:
    """What a file of Axolotl comes to."""
    del environment
    theirs = Foreign(LANGUAGE, nodes, file, KEYS)
    theirs.read_tables(SETTINGS, IDLE, REFUSED)
    _read_method(theirs)
    held_out = _read_rows(theirs)
    _read_learned(theirs)
    _read_training(theirs)
    _read_checkpoints(theirs, held_out=held_out)
    _read_trackers(theirs)
    return theirs.finish()


def _read_method(theirs: Foreign) -> None:
    said = theirs.text("adapter")
    if said not in ("", "lora", "qlora"):
        theirs.complain("adapter", f"adapter: {said}", nearest(said, ("lora", "qlora")))
    four, eight = theirs.truth("load_in_4bit"), theirs.truth("load_in_8bit")
    method = "full" if not said else "qlora" if said == "qlora" or four or eight else "lora"
    theirs.put("tuning.method", method, "adapter")
    targets, whole = theirs.words("lora_target_modules"), theirs.truth("lora_target_linear")
    if method == "full":
        for key in ADAPTER:
            theirs.idle(key, "adapter is not set", unless=(None,))
        return
    theirs.map(ADAPTER)
    if method == "qlora":
        theirs.put("tuning.quantization.bits", 8 if eight and not four else 4, "adapter")
    if targets and not whole:
        theirs.put("tuning.lora.target_modules", targets, "lora_target_modules")


def _read_rows(theirs: Foreign) -> bool:
    made = [one for one in map_items(theirs, "datasets") if one]
    if not made:
        theirs.complain(
            "datasets",
            "datasets: no rows to train on",
            "name one: datasets: [{path: ..., type: ...}]",
        )
    elif len(made) == 1:
        for key, value in made[0].items():
            theirs.put(f"data.{key}", value, "datasets")
    else:
        theirs.put("data.sources", made, "datasets")
    tests = [one for one in map_items(theirs, "test_datasets") if one]
    size = theirs.number("val_set_size", 0.0)
    if len(tests) > 1:
        theirs.complain("test_datasets", "test_datasets names several", "join them into one file")
    elif tests:
        theirs.put("data.validation_path", tests[0]["path"], "test_datasets")
    elif size >= 1:
        theirs.complain(
            "val_set_size", f"val_set_size: {size:g} rows; here it is a share", "write e.g. 0.05"
        )
    elif size:
        theirs.put("data.validation_split", size, "val_set_size")
    return bool(tests or size)


def map_items(theirs: Foreign, key: str) -> list[dict[str, object]]:
    """Each dataset of a list, in our words."""
    told = theirs.take(key)
    items = cast("list[Any]", told) if isinstance(told, list) else []
    return [_dataset(theirs, key, place, one) for place, one in enumerate(items)]


def _dataset(theirs: Foreign, key: str, place: int, one: Any) -> dict[str, object]:
    told = cast("dict[str, Any]", one) if isinstance(one, dict) else {}
    where = f"{key}[{place}]"
    for name in told:
        if name not in _ROW_KEYS:
            theirs.complain(key, f"{where}.{name} has no counterpart", nearest(name, _ROW_KEYS))
    kind = str(told.get("type", "alpaca")).partition(".")[0].partition(":")[0]
    if kind not in _TYPES_OF_ROWS:
        theirs.complain(
            key, f"{where}.type: {told.get('type')} is not read", nearest(kind, _TYPES_OF_ROWS)
        )
        return {}
    files = told.get("data_files")
    path = files if isinstance(files, str) else told.get("path")
    if not path or (isinstance(files, list) and len(cast("list[Any]", files)) != 1):
        theirs.complain(
            key, f"{where} names no single place of rows", "write path, one entry for each file"
        )
        return {}
    made: dict[str, object] = {"path": path, "format": _TYPES_OF_ROWS[kind]}
    names = {"field": "text", "field_messages": "messages"}
    columns = {
        ours: str(told[theirs_])
        for theirs_, ours in names.items()
        if told.get(theirs_, ours) != ours
    }
    if columns:
        made["columns"] = columns
    if told.get("split", "train") != "train":
        made["split"] = told["split"]
    made |= {
        ours: told[name]
        for name, ours in (("name", "subset"), ("revision", "revision"))
        if told.get(name)
    }
    return made


def _read_learned(theirs: Foreign) -> None:
    theirs.put("data.max_length", theirs.whole("sequence_len", 2048), "sequence_len")
    policy = theirs.text("excess_length_strategy", "drop")
    theirs.put("data.too_long", "cut" if policy == "truncate" else "drop", "sequence_len")
    everything = theirs.truth("train_on_inputs")
    theirs.put("data.train_on", "everything" if everything else "all", "train_on_inputs")
    name = theirs.text("chat_template", "tokenizer_default")
    if name == "jinja":
        theirs.complain(
            "chat_template", "chat_template: jinja", "write the template into a file: data.template"
        )
    elif name not in _TEMPLATES:
        theirs.complain(
            "chat_template", f"chat_template: {name} is not known here", nearest(name, _TEMPLATES)
        )
    elif _TEMPLATES[name] is not None:
        theirs.put("data.template", _TEMPLATES[name], "chat_template")
    theirs.refuse(
        "chat_template_jinja",
        Refusal("a template is a file here", "write it to one: data.template"),
    )
    if words := theirs.words("tokens"):
        theirs.put("model.new_tokens", words, "tokens")


def _read_training(theirs: Foreign) -> None:
    if not theirs.said("num_epochs") and not theirs.said("max_steps"):
        theirs.put("train.epochs", 1.0, "num_epochs")
    theirs.put("train.seed", theirs.whole("seed", 42), "seed")
    for key, table, name, default in (
        ("optimizer", _OPTIMIZERS, "train.optimizer", "adamw_torch_fused"),
        ("lr_scheduler", _SCHEDULES, "train.schedule", "cosine"),
    ):
        word = theirs.text(key, default)
        if word not in table:
            theirs.complain(key, f"{key}: {word} is not offered", nearest(word, table))
        theirs.put(name, table.get(word, table[default]), key)
    theirs.map({"cosine_min_lr_ratio": "train.min_learning_rate_ratio"})
    if theirs.said("warmup_steps"):
        theirs.put("train.warmup_steps", theirs.whole("warmup_steps", 0), "warmup_steps")
        theirs.idle("warmup_ratio", "warmup_steps is set", unless=(None,))
    else:
        theirs.put("train.warmup_ratio", theirs.number("warmup_ratio", 0.03), "warmup_ratio")
    betas = theirs.number("adam_beta1", 0.9), theirs.number("adam_beta2", 0.999)
    if theirs.said("adam_beta1") or theirs.said("adam_beta2"):
        theirs.put("train.betas", betas, "adam_beta2")
    if theirs.number("adam_epsilon", 1e-8) != 1e-8:
        theirs.complain("adam_epsilon", "adam_epsilon: AdamW's epsilon is 1e-8 here", "remove it")
    said = theirs.take("bf16")
    bf16 = said in (True, "true", "full", "yes")
    theirs.put(
        "train.precision", "auto" if said in (None, "auto") else "bf16" if bf16 else "fp32", "bf16"
    )
    rows = theirs.whole("micro_batch_size", 1) * theirs.whole("gradient_accumulation_steps", 1)
    theirs.made.rows_per_device = rows
    theirs.put("train.batch_size", rows, "micro_batch_size")
    if theirs.said("gradient_checkpointing"):
        again = theirs.take("gradient_checkpointing") not in (False, "false")
        theirs.put(
            "compute.gradient_checkpointing", "auto" if again else False, "gradient_checkpointing"
        )
    if theirs.take("fsdp"):
        theirs.put("compute.strategy", "fsdp", "fsdp")


def _read_checkpoints(theirs: Foreign, *, held_out: bool) -> None:
    for what, steps, name in (("saves", "save_steps", "save"), ("evals", "eval_steps", "eval")):
        every = theirs.number(steps, 0)
        a_pass = theirs.take(f"{what}_per_epoch")
        theirs.take(f"{name}_strategy")
        if every >= 1 and (name == "save" or held_out):
            theirs.put(f"train.{steps}", int(every), steps)
        elif a_pass is not None and (name == "save" or held_out):
            theirs.remark(
                f"{what}_per_epoch: {a_pass}: ten checkpoints are kept over the run, and held-out rows are gone through "
                f"at each; train.{steps} counts steps"
            )


def _read_trackers(theirs: Foreign) -> None:
    project, trackers = theirs.text("wandb_project"), list[str]()
    if project or theirs.truth("use_wandb"):
        trackers.append("wandb")
        theirs.map({"wandb_project": "output.track.project", "wandb_entity": "output.track.entity"})
        theirs.map({"wandb_name": "output.track.name"})
    for key in ("wandb_entity", "wandb_name"):
        theirs.take(key)
    theirs.idle("wandb_run_id", "a run's folder is its id", unless=(None,))
    theirs.idle("wandb_mode", "WANDB_MODE in the environment says it", unless=(None, "online"))
    if theirs.said("mlflow_tracking_uri") or theirs.said("mlflow_experiment_name"):
        trackers.append("mlflow")
        theirs.map(
            {
                "mlflow_tracking_uri": "output.track.uri",
                "mlflow_experiment_name": "output.track.project",
            }
        )
    if theirs.truth("use_tensorboard"):
        trackers.append("tensorboard")
    theirs.put("output.trackers", trackers, "wandb_project")
