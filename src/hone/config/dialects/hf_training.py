"""The keys of transformers' TrainingArguments, which LLaMA-Factory and TRL share: a table, and what is more than a name.

It knows neither of the two, and no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from hone.config.dialects.foreign import Foreign, Refusal
from hone.errors import nearest

SETTINGS: Final[Mapping[str, str]] = {
    "output_dir": "output.dir",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.max_grad_norm",
    "label_smoothing_factor": "train.label_smoothing",
    "neftune_noise_alpha": "train.neftune_alpha",
    "save_total_limit": "train.save_total_limit",
    "run_name": "output.track.name",
}
"""Keys that are settings of ours under another name, with the same default or with ours where they have none."""

_SCHEDULES: Final = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "cosine_with_min_lr": "cosine",
    "warmup_stable_decay": "wsd",
}
_OPTIMIZERS: Final = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw": "paged_adamw",
    "paged_adamw_32bit": "paged_adamw",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "lion_32bit": "lion",
    "lion_8bit": "lion_8bit",
    "muon": "muon",
}
_TRACKERS: Final = ("tensorboard", "wandb", "trackio", "mlflow")
_CHOSEN_HERE: Final = "the run chooses it by itself, and the result is the same"

IDLE: Final[Mapping[str, str]] = {
    "logging_steps": "each step is in the run's events",
    "logging_strategy": "each step is in the run's events",
    "logging_first_step": "each step is in the run's events",
    "logging_nan_inf_filter": "a loss that is not finite stops the run",
    "log_level": "`--quiet` and `--json` say how much is shown",
    "log_level_replica": "`--quiet` and `--json` say how much is shown",
    "disable_tqdm": "`--quiet` and `--json` say how much is shown",
    "include_num_input_tokens_seen": "tokens are always counted",
    "skip_memory_metrics": "memory is always measured",
    "dataloader_num_workers": "rows are prepared ahead of training (data.workers)",
    "dataloader_pin_memory": "rows are prepared ahead of training (data.workers)",
    "dataloader_persistent_workers": "rows are prepared ahead of training (data.workers)",
    "dataloader_prefetch_factor": "rows are prepared ahead of training (data.workers)",
    "dataset_num_proc": "rows are prepared ahead of training (data.workers)",
    "remove_unused_columns": "keys of a row that are not used are counted",
    "per_device_eval_batch_size": "held-out rows stand in Packs, as many as fit",
    "eval_accumulation_steps": "held-out rows stand in Packs, as many as fit",
    "prediction_loss_only": "held-out rows give a loss",
    "auto_find_batch_size": "memory never changes train.batch_size: it is divided into as many passes as fit",
    "torch_empty_cache_steps": _CHOSEN_HERE,
    "gradient_checkpointing_kwargs": _CHOSEN_HERE,
    "group_by_length": "nothing is padded, so lengths need no grouping",
    "train_sampling_strategy": "nothing is padded, so lengths need no grouping",
    "length_column_name": "nothing is padded, so lengths need no grouping",
    "ddp_timeout": "a rank that hangs ends the run within a minute, and the same command resumes",
    "ddp_find_unused_parameters": _CHOSEN_HERE,
    "ddp_bucket_cap_mb": _CHOSEN_HERE,
    "ddp_broadcast_buffers": _CHOSEN_HERE,
    "ddp_static_graph": _CHOSEN_HERE,
    "ddp_backend": _CHOSEN_HERE,
    "local_rank": "ranks are started by Hone (compute.nproc)",
    "fsdp_config": "compute.strategy=fsdp wraps the layers of the model by itself",
    "fsdp_transformer_layer_cls_to_wrap": "compute.strategy=fsdp wraps the layers of the model by itself",
    "tf32": "a GPU's kernels are chosen by the run",
    "torch_compile_backend": _CHOSEN_HERE,
    "torch_compile_mode": _CHOSEN_HERE,
    "use_cache": "training keeps no keys and values",
    "save_only_model": "a checkpoint is always whole, so that the same command resumes",
    "save_safetensors": "weights are always safetensors",
    "overwrite_output_dir": "the same command resumes in its folder; --fresh starts over",
    "save_on_each_node": "the first machine writes",
    "restore_callback_states_from_checkpoint": "a run resumes whole",
    "ignore_data_skip": "a run resumes with the very rows that come next",
    "full_determinism": "a run always gives the same bits (compute.deterministic)",
    "average_tokens_across_devices": "a step is always the mean over the trained tokens of all ranks",
    "label_names": "labels follow from the turns",
    "metric_for_best_model": "checkpoints are compared by the held-out loss",
    "greater_is_better": "checkpoints are compared by the held-out loss",
    "eval_on_start": "the first evaluation is at the first checkpoint",
    "eval_delay": "evaluations begin with the first checkpoint",
    "use_liger_kernel": "fused kernels are compute.kernels, and need a GPU",
    "enable_liger_kernel": "fused kernels are compute.kernels, and need a GPU",
    "use_reentrant_gc": _CHOSEN_HERE,
    "data_seed": "one seed, train.seed, names all randomness",
}
"""Keys whose object is absent here, with the reason."""

REFUSED: Final[Mapping[str, Refusal]] = {
    "fp16": Refusal(
        "float16 gradients vanish without loss scaling, and bf16 needs none",
        "write bf16: true instead",
    ),
    "fp16_full_eval": Refusal("float16 is not offered", "remove it"),
    "optim_args": Refusal(
        "the optimizers here have no such arguments", "remove it; see train.optimizer"
    ),
    "optim_target_modules": Refusal("GaLore and APOLLO are not offered", "remove it"),
    "push_to_hub": Refusal(
        "training publishes nothing", "remove it; `hone push` asks before it publishes"
    ),
    "hub_model_id": Refusal(
        "training publishes nothing", "remove it; `hone push` asks before it publishes"
    ),
    "hub_token": Refusal("a secret has no place in a file", "set HF_TOKEN in the environment"),
    "dataloader_drop_last": Refusal(
        "every row of an epoch is trained, the last ones in a smaller step", "remove it"
    ),
    "accelerator_config": Refusal(
        "Hone does not train through accelerate", "remove it; see `compute`"
    ),
    "parallelism_config": Refusal(
        "no row, layer or matrix is split among ranks", "use deepspeed (ZeRO-3) or fsdp"
    ),
    "debug": Refusal("transformers' debuggers are not here", "remove it", unless=(None, False, "")),
}
"""Keys that would change the result, or that must not be here."""

EXTRA: Final = (
    "learning_rate", "num_train_epochs", "max_steps", "lr_scheduler_type", "lr_scheduler_kwargs",
    "warmup_ratio", "warmup_steps", "optim", "adam_beta1", "adam_beta2", "adam_epsilon", "seed",
    "per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "save_strategy", "save_steps",
    "eval_strategy", "evaluation_strategy", "eval_steps", "load_best_model_at_end", "report_to",
    "logging_dir", "project", "deepspeed", "fsdp", "resume_from_checkpoint", "torch_compile", "use_cpu",
    "no_cuda",
)  # fmt: skip
"""The keys that are read by what they mean."""

KEYS: Final = frozenset({*SETTINGS, *IDLE, *REFUSED, *EXTRA})


@dataclass(frozen=True)
class Defaults:
    """Defaults in which the languages differ."""

    learning_rate: float = 5e-5
    schedule: str = "linear"
    save_steps: int = 500
    rows_per_pass: int = 8
    precision: str = "fp32"


def read_training(theirs: Foreign, defaults: Defaults, *, held_out: bool) -> None:
    """Take every key of TrainingArguments. `held_out`: whether the file names held-out rows."""
    theirs.read_tables(SETTINGS, IDLE, REFUSED)
    theirs.put(
        "train.learning_rate",
        theirs.number("learning_rate", defaults.learning_rate),
        "learning_rate",
    )
    theirs.put("train.epochs", theirs.number("num_train_epochs", 3.0), "num_train_epochs")
    if (most := theirs.whole("max_steps", -1)) > 0:
        theirs.put("train.max_steps", most, "max_steps")
    theirs.put("train.seed", theirs.whole("seed", 42), "seed")
    _read_schedule(theirs, defaults)
    _read_optimizer(theirs)
    _read_batch(theirs, defaults)
    precision = (
        "bf16" if theirs.truth("bf16") else "fp32" if theirs.said("bf16") else defaults.precision
    )
    theirs.put("train.precision", precision, "bf16")
    _read_checkpoints(theirs, defaults, held_out=held_out)
    _read_trackers(theirs)
    _read_devices(theirs)


def _read_schedule(theirs: Foreign, defaults: Defaults) -> None:
    name = theirs.text("lr_scheduler_type", defaults.schedule)
    ours = _SCHEDULES.get(name)
    arguments = theirs.take("lr_scheduler_kwargs")
    told = dict(cast("Mapping[str, Any]", arguments)) if isinstance(arguments, Mapping) else {}
    if ours is None:
        remedy = f"{nearest(name, _SCHEDULES)}; `constant`, `linear`, `cosine` and `wsd` are Hone's"
        theirs.complain(
            "lr_scheduler_type",
            f"lr_scheduler_type: {name} is not among the schedules here",
            remedy,
        )
        ours = "linear"
    theirs.put("train.schedule", ours, "lr_scheduler_type")
    if name == "warmup_stable_decay":
        _read_decay(theirs, told)
    if (floor := told.pop("min_lr_rate", None)) is not None:
        theirs.put("train.min_learning_rate_ratio", floor, "lr_scheduler_kwargs")
    elif (lowest := told.pop("min_lr", None)) is not None:
        peak = cast("float", theirs.made.values["train.learning_rate"])
        theirs.put("train.min_learning_rate_ratio", float(lowest) / peak, "lr_scheduler_kwargs")
    for key in told:
        theirs.complain(
            "lr_scheduler_kwargs",
            f"lr_scheduler_kwargs: {key} has no counterpart",
            "known: min_lr, min_lr_rate",
        )
    warmup = theirs.number("warmup_steps", 0)
    ratio = theirs.number("warmup_ratio", 0)
    if name == "constant" and (warmup or ratio):
        theirs.remark(
            "lr_scheduler_type: constant: transformers leaves the warmup out there; so does this run"
        )
        warmup = ratio = 0
    if warmup or ratio:
        theirs.remark(
            "warmup: the first step learns too, at a share of the peak; transformers begins at a rate of 0"
        )
    if warmup >= 1:
        theirs.put("train.warmup_steps", int(warmup), "warmup_steps")
    else:  # below 1, transformers takes it for a share
        key = "warmup_steps" if warmup else "warmup_ratio"
        theirs.put("train.warmup_ratio", warmup or ratio, key)


def _read_decay(theirs: Foreign, told: dict[str, Any]) -> None:
    """The decay of warmup_stable_decay, which is told in steps there and as a share here."""
    told.pop("num_stable_steps", None)
    steps, most = told.pop("num_decay_steps", None), theirs.made.values.get("train.max_steps")
    if steps is None or not isinstance(most, int):
        theirs.remark(
            "lr_scheduler_type: warmup_stable_decay: the last fifth of the steps decays (train.decay_ratio)"
        )
    else:
        theirs.put("train.decay_ratio", float(steps) / most, "lr_scheduler_kwargs")
    theirs.put("train.decay_shape", "cosine", "lr_scheduler_type")


def _read_optimizer(theirs: Foreign) -> None:
    name = theirs.text("optim", "adamw_torch")
    ours = _OPTIMIZERS.get(name)
    if ours is None:
        theirs.complain(
            "optim", f"optim: {name} is not among the optimizers here", nearest(name, _OPTIMIZERS)
        )
        ours = "adamw"
    theirs.put("train.optimizer", ours, "optim")
    betas = theirs.number("adam_beta1", 0.9), theirs.number("adam_beta2", 0.999)
    if theirs.said("adam_beta1") or theirs.said("adam_beta2"):
        theirs.put(
            "train.betas", betas, "adam_beta1" if theirs.said("adam_beta1") else "adam_beta2"
        )
    if theirs.number("adam_epsilon", 1e-8) != 1e-8:
        theirs.complain(
            "adam_epsilon", "adam_epsilon: AdamW's epsilon is 1e-8 here", "remove it, or write 1e-8"
        )


def _read_batch(theirs: Foreign, defaults: Defaults) -> None:
    rows = theirs.whole("per_device_train_batch_size", defaults.rows_per_pass)
    passes = theirs.whole("gradient_accumulation_steps", 1)
    theirs.made.rows_per_device = rows * passes
    theirs.put("train.batch_size", rows * passes, "per_device_train_batch_size")


def _read_checkpoints(theirs: Foreign, defaults: Defaults, *, held_out: bool) -> None:
    saves = _strategy(theirs, "save_strategy", "steps")
    every = theirs.number("save_steps", defaults.save_steps)
    if saves == "steps" and every >= 1:
        theirs.put("train.save_steps", int(every), "save_steps")
    elif saves == "steps":
        theirs.remark(
            f"save_steps: {every:g} is a share of the steps there; ten checkpoints are kept apart here"
        )
    else:
        theirs.remark(
            f"save_strategy: {saves}: checkpoints lie at ten places over the run, so that it can be resumed "
            "(train.save_steps)"
        )
    other = "evaluation_strategy" if theirs.said("evaluation_strategy") else "eval_strategy"
    theirs.take("evaluation_strategy")
    evaluates = _strategy(theirs, other, "no")
    theirs.take("eval_strategy")
    steps = theirs.number("eval_steps", 0) or theirs.number("logging_steps", 500)
    if not held_out:
        if evaluates != "no" or theirs.said("eval_steps"):
            theirs.remark("eval_strategy and eval_steps have no effect: no rows are held out")
    elif evaluates == "steps" and steps >= 1:
        theirs.put("train.eval_steps", int(steps), "eval_steps")
    else:
        theirs.remark(
            f"eval_strategy: {evaluates}: held-out rows are gone through at each checkpoint"
        )
    if theirs.truth("load_best_model_at_end"):
        theirs.put("train.best_at_end", held_out, "load_best_model_at_end")


def _strategy(theirs: Foreign, key: str, default: str) -> str:
    """`no` is a truth value for readers of YAML 1.1."""
    said = theirs.take(key)
    return "no" if said is False else default if said is None else str(said).lower()


def _read_trackers(theirs: Foreign) -> None:
    theirs.idle("logging_dir", "trackers write into the run's folder (output.track.folder)")
    told = [name.lower() for name in theirs.words("report_to")]
    told = [name for name in told if name not in ("none", "false", "null")]
    known = [name for name in told if name in _TRACKERS]
    for name in told:
        if name not in _TRACKERS:
            theirs.complain(
                "report_to",
                f"report_to: {name} is not told here",
                nearest(name, (*_TRACKERS, "none")),
            )
    theirs.put("output.trackers", known, "report_to")
    if theirs.said("project") and known:
        theirs.map({"project": "output.track.project"})
    theirs.take("project")
    if not known:
        theirs.made.values.pop("output.track.name", None)
        theirs.made.origins.pop("output.track.name", None)


def _read_devices(theirs: Foreign) -> None:
    theirs.map({"deepspeed": "compute.deepspeed"})
    if any(word in ("full_shard", "shard_grad_op", "hybrid_shard") for word in _shards(theirs)):
        theirs.put("compute.strategy", "fsdp", "fsdp")
    if theirs.truth("use_cpu") or theirs.truth("no_cuda"):
        theirs.put("compute.device", "cpu", "use_cpu" if theirs.said("use_cpu") else "no_cuda")
    if theirs.said("torch_compile"):
        theirs.put("compute.compile", theirs.truth("torch_compile"), "torch_compile")
    said = theirs.take("resume_from_checkpoint")
    if said not in (None, True, False, "auto"):
        theirs.complain(
            "resume_from_checkpoint",
            f"resume_from_checkpoint: {said} cannot be honoured: a run resumes in its own folder",
            "remove it: the same command goes on from the last checkpoint of its output_dir",
        )


def _shards(theirs: Foreign) -> list[str]:
    return [word for part in theirs.words("fsdp") for word in part.split()]
