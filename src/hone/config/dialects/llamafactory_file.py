"""Our settings as a LLaMA-Factory training file, and its own file with words laid over it. It writes nothing.

What we can say and LLaMA-Factory cannot is refused by name, so that it never trains something else in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from hone.config.complaints import Complaint, raise_complaints
from hone.config.dialects.llamafactory_keys import TEMPLATES
from hone.config.layers import DEFAULT, Resolved
from hone.config.sections import Config
from hone.config.values import Node, fit, plain_scalar
from hone.errors import ConfigError

DATASETS: Final = "dataset_info.json"

_SAME: Final[Mapping[str, str]] = {
    "model.name": "model_name_or_path",
    "model.revision": "model_revision",
    "model.adapter": "adapter_name_or_path",
    "data.max_length": "cutoff_len",
    "data.max_rows": "max_samples",
    "data.validation_split": "val_size",
    "train.epochs": "num_train_epochs",
    "train.max_steps": "max_steps",
    "train.warmup_steps": "warmup_steps",
    "train.warmup_ratio": "warmup_ratio",
    "train.weight_decay": "weight_decay",
    "train.max_grad_norm": "max_grad_norm",
    "train.label_smoothing": "label_smoothing_factor",
    "train.neftune_alpha": "neftune_noise_alpha",
    "train.seed": "seed",
    "train.save_steps": "save_steps",
    "train.eval_steps": "eval_steps",
    "train.early_stop": "early_stopping_steps",
    "train.save_total_limit": "save_total_limit",
    "train.best_at_end": "load_best_model_at_end",
    "compute.deepspeed": "deepspeed",
    "output.track.name": "run_name",
}
_READ_BY_MEANING: Final = frozenset(
    {
        "tuning.method", "data.path", "data.sources", "data.format", "data.columns", "data.tags", "data.split",
        "data.subset", "data.template", "data.train_on", "data.train_separators", "data.too_long", "data.shuffle",
        "data.bad_rows", "data.validation_path", "train.batch_size", "train.learning_rate", "train.schedule",
        "train.optimizer", "train.betas", "train.loss", "train.precision", "train.lora_plus_ratio", "compute.device",
        "compute.nproc", "compute.gradient_checkpointing", "output.dir", "output.trackers", "data.input_heading",
    }
)  # fmt: skip
_WITHOUT_EFFECT: Final = (
    "compute.threads", "compute.micro_batch_tokens", "compute.share_prefixes", "compute.pack", "compute.compile",
    "compute.kernels", "compute.split_weights", "compute.deterministic", "compute.strategy", "data.workers",
    "tuning.lora.layers",
)  # fmt: skip
_OPTIMIZERS: Final = {
    "adamw": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "lion": "lion_32bit",
    "lion_8bit": "lion_8bit",
}
_SCHEDULES: Final = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_FORMATS: Final = ("alpaca", "sharegpt", "messages", "text")
_SHAREGPT: Final = {"conversations": "messages", "system": "system", "tools": "tools"}
_ALPACA: Final = {
    "instruction": "prompt", "input": "query", "output": "response", "history": "history", "system": "system",
    "tools": "tools",
}  # fmt: skip
_MESSAGES: Final = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "observation_tag": "tool", "function_tag": "function", "system_tag": "system",
}  # fmt: skip


def their_file(root: Node, words: Mapping[str, str]) -> dict[str, Any]:
    """LLaMA-Factory's own file as plain values, `words` (key to what was typed) over it."""
    values = cast("dict[str, Any]", fit(root, Any))
    return values | {key: plain_scalar(word.strip()).scalar for key, word in words.items()}


def from_ours(
    resolved: Resolved, *, output: str, shape: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The training file and the `dataset_info.json` that our settings come to.

    `output`: the run's folder; `shape`: that of the rows, where `data.format` is `auto`. Raises ConfigError with
    everything that LLaMA-Factory cannot be told.
    """
    config = resolved.config
    complaints = list(_unsayable(resolved))
    if complaints:
        raise_complaints(complaints)
    values: dict[str, Any] = {
        "stage": "pt" if shape == "text" else "sft",
        "do_train": True,
        "output_dir": output,
        "dataset": "rows",
        "overwrite_output_dir": True,
        "logging_steps": 1,
        "plot_loss": True,
        "report_to": config.output.trackers or "none",
    }
    for name, key in _SAME.items():
        value = _value(config, name)
        if value is not None and value is not False:
            values[key] = value
    values |= _method(config) | _optimisation(config) | _rows(config)
    datasets = {"rows": _dataset(config.data.path, shape, config.data.columns, config.data.tags)}
    if config.data.validation_path:
        values["eval_dataset"] = "held_out"
        path = config.data.validation_path
        datasets["held_out"] = _dataset(path, shape, config.data.columns, config.data.tags)
    return values, datasets


def _value(config: Config, name: str) -> Any:
    found: Any = config
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _unsayable(resolved: Resolved) -> list[Complaint]:
    config = resolved.config
    found: list[Complaint] = []
    for name, said in resolved.origins.items():
        known = name in _SAME or name in _READ_BY_MEANING or name in _WITHOUT_EFFECT
        known = known or name.startswith(
            (
                "tuning.lora.",
                "tuning.freeze.",
                "tuning.quantization.",
                "data.columns.",
                "data.tags.",
            )
        )
        if said == DEFAULT or known or _value_is_default(config, name):
            continue
        found.append(
            Complaint(
                f"{name} cannot be told to LLaMA-Factory", said, f"remove {name}, or --engine"
            )
        )
    told = resolved.origins
    if config.data.sources:
        found.append(
            Complaint("data.sources: one place of rows is told", told["data.sources"], "join them")
        )
    if config.data.too_long != "share":
        found.append(
            Complaint(
                f"data.too_long={config.data.too_long}: LLaMA-Factory cuts long rows by its own rule",
                told["data.too_long"],
                "set data.too_long=share",
            )
        )
    if config.train.schedule not in _SCHEDULES:
        found.append(
            Complaint(
                f"train.schedule={config.train.schedule} is Hone's own",
                told["train.schedule"],
                "use cosine",
            )
        )
    if config.data.template is not None and config.data.template not in TEMPLATES.values():
        found.append(
            Complaint(
                "data.template: LLaMA-Factory reads no such one",
                told["data.template"],
                "name one of both",
            )
        )
    return found


def _value_is_default(config: Config, name: str) -> bool:
    try:
        return _value(config, name) == _value(Config(), name)
    except AttributeError:
        return False


def _method(config: Config) -> dict[str, Any]:
    tuning = config.tuning
    values: dict[str, Any] = {"finetuning_type": "lora" if tuning.is_adapter else tuning.method}
    if tuning.method == "qlora":
        values["quantization_bit"] = tuning.quantization.bits
        if tuning.quantization.bits == 4:
            values["quantization_type"] = tuning.quantization.quant_type
            values["double_quantization"] = tuning.quantization.double_quant
    if tuning.is_adapter:
        lora = tuning.lora
        if lora.init not in ("default", "pissa") or lora.layers is not None:
            raise ConfigError(
                "tuning.lora.init and tuning.lora.layers are told to LLaMA-Factory as `default` and `pissa` alone",
                remedy="remove them, or --engine",
            )
        targets = lora.target_modules
        values |= {"lora_rank": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
        values["lora_target"] = (
            "all"
            if targets == "all-linear"
            else targets
            if isinstance(targets, str)
            else ",".join(targets)
        )
        values |= {"use_rslora": True} if lora.rslora else {}
        values |= {"use_dora": True} if lora.dora else {}
        if lora.modules_to_save:
            names = {"embeddings": "embed_tokens", "head": "lm_head"}
            values["additional_target"] = ",".join(
                names.get(one, one) for one in lora.modules_to_save
            )
        if lora.init == "pissa":
            values |= {
                "pissa_init": True,
                "pissa_iter": lora.pissa_niter or -1,
                "pissa_convert": True,
            }
    if tuning.method == "freeze":
        freeze = tuning.freeze
        modules = freeze.trainable_modules
        values["freeze_trainable_layers"] = freeze.trainable_layers
        values["freeze_trainable_modules"] = (
            modules if isinstance(modules, str) else ",".join(modules)
        )
        if freeze.extra_modules:
            values["freeze_extra_modules"] = ",".join(freeze.extra_modules)
    return values


def _optimisation(config: Config) -> dict[str, Any]:
    train = config.train
    ranks = config.compute.nproc if isinstance(config.compute.nproc, int) else 1
    if train.batch_size % ranks:
        raise ConfigError(
            f"train.batch_size={train.batch_size} rows cannot be shared alike by {ranks} devices",
            remedy=f"choose a multiple of {ranks}",
        )
    values: dict[str, Any] = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": train.batch_size // ranks,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": _SCHEDULES[train.schedule],
        "adam_beta1": config.betas[0],
        "adam_beta2": config.betas[1],
    }
    if train.optimizer == "muon":
        values["use_muon"] = True
    else:
        values["optim"] = _OPTIMIZERS[train.optimizer]
    if train.loss == "dft":
        values["use_dft_loss"] = True
    if train.precision == "bf16":
        values["bf16"] = True
    if train.lora_plus_ratio != 1.0 and config.tuning.is_adapter:
        values["loraplus_lr_ratio"] = train.lora_plus_ratio
    if config.compute.device == "cpu":
        values["use_cpu"] = True
    if config.compute.gradient_checkpointing is False:
        values["disable_gradient_checkpointing"] = True
    if train.eval_steps is not None:
        values["eval_strategy"] = "steps"
    return values


def _rows(config: Config) -> dict[str, Any]:
    data = config.data
    values: dict[str, Any] = {}
    if data.template is not None:
        values["template"] = next(
            theirs for theirs, ours in TEMPLATES.items() if ours == data.template
        )
    if data.train_on != "all":
        values["mask_history" if data.train_on == "last" else "train_on_prompt"] = True
    if not data.shuffle:
        values["disable_shuffling"] = True
    return values


def _dataset(
    path: str, shape: str, columns: Mapping[str, str], tags: Mapping[str, str]
) -> dict[str, Any]:
    """The description of one place of rows."""
    if shape not in _FORMATS:
        raise ConfigError(
            f"rows of the shape {shape!r} cannot be told to LLaMA-Factory",
            where=path,
            remedy="hone convert ROWS OUT.jsonl --to messages",
        )
    about: dict[str, Any] = {"file_name": path}
    if shape == "text":
        return about | {"columns": {"prompt": columns.get("text", "text")}}
    if shape == "alpaca":
        names = {ours: columns.get(ours, ours) for ours in ("instruction", "input", "output")}
        return about | {
            "columns": {_ALPACA[ours]: theirs for ours, theirs in (names | dict(columns)).items()}
        }
    ours = "messages" if shape == "messages" else "conversations"
    named = {"messages": columns.get(ours, ours)}
    named |= {
        _SHAREGPT[key]: value for key, value in columns.items() if key in _SHAREGPT and key != ours
    }
    about |= {"formatting": "openai" if shape == "messages" else "sharegpt", "columns": named}
    if shape == "messages":
        return about | {"tags": dict(_MESSAGES)}
    return about | ({"tags": dict(tags)} if tags else {})
