"""SFT-Play's YAML (`model`, `tuning`, `train`, `data`, `gen`, `logging`), read as settings of ours, key by key.

Its defaults hold where it says nothing, so a file without `include:` and `data:` trains on `data/processed`. The same
names are what its overrides speak of: `train.learning_rate`, or TRAIN_LEARNING_RATE on the command line of make.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from hone.config.dialects.foreign import Foreign, Refusal, Translation
from hone.config.values import Node
from hone.errors import nearest

LANGUAGE: Final = "SFT-Play"

SETTINGS: Final[Mapping[str, str]] = {
    "model.max_seq_len": "data.max_length",
    "train.weight_decay": "train.weight_decay",
    "train.max_grad_norm": "train.max_grad_norm",
    "train.max_steps": "train.max_steps",
    "train.steps": "train.max_steps",
    "train.save_total_limit": "train.save_total_limit",
    "train.deepspeed": "compute.deepspeed",
    "deepspeed": "compute.deepspeed",
    "train.neftune_noise_alpha": "train.neftune_alpha",
}
"""Keys that are settings of ours under another name."""

_REPLIES: Final = "it is about replies, not training; `hone infer`, `hone evaluate` and `hone chat` have such settings"
_BLOCKS: Final = "rows stand in Packs, as many as fit, and are cut at model.max_seq_len"
_PROCESSES: Final = "`hone process` makes the files that data.train_path and data.val_path name"

IDLE: Final[Mapping[str, str]] = {
    "model.trust_remote_code": "no code of a model's folder is ever run; a model that needs it is refused as it loads",
    "model.local_dir": "models of the hub lie in the hub's own cache (HF_HOME)",
    "model.attn_implementation": "the attention kernel follows from the device and the rows, with the same result",
    "data.cache_dir": "prepared rows are cached by content (HONE_CACHE)",
    "data.test_path": "test rows are for `hone evaluate`, and are not trained",
    "data.raw_path": _PROCESSES,
    "data.split.train_ratio": _PROCESSES,
    "data.split.val_ratio": _PROCESSES,
    "data.split.test_ratio": _PROCESSES,
    "data.chunk_size": "`dapt` cuts documents before training",
    "data.min_text_length": "`dapt` cuts documents before training",
    "train.logging_steps": "each step is in the run's events",
    "train.logging_strategy": "each step is in the run's events",
    "train.dataloader_num_workers": "rows are prepared ahead of training (data.workers)",
    "train.dataloader_pin_memory": "rows are prepared ahead of training (data.workers)",
    "train.overwrite_output_dir": "the same command resumes in its folder; --fresh starts over",
    "train.greater_is_better": "checkpoints are compared by the held-out loss",
    "logging.log_interval": "each step is in the run's events",
    "block_size": _BLOCKS,
    "stride": _BLOCKS,
    "pack_factor": _BLOCKS,
    "gen.max_new_tokens": _REPLIES,
    "gen.temperature": _REPLIES,
    "gen.top_p": _REPLIES,
    "gen.top_k": _REPLIES,
    "gen.do_sample": _REPLIES,
    "gen.num_beams": _REPLIES,
    "gen.repetition_penalty": _REPLIES,
}
"""Keys whose object is absent here, with the reason."""

REFUSED: Final[Mapping[str, Refusal]] = {
    "train.fp16": Refusal(
        "float16 gradients vanish without loss scaling, and bf16 needs none",
        "write bf16: true and fp16: false",
    ),
    "logging.wandb_api_key": Refusal(
        "a secret has no place in a file", "set WANDB_API_KEY, and remove it"
    ),
}
"""Keys that would change the result, or that must not be here."""

EXTRA: Final = (
    "seed", "run_name", "task_mode", "mode", "datasets", "model.name", "model.type", "model.revision", "tuning.mode",
    "tuning.backend", "tuning.lora.r", "tuning.lora.alpha", "tuning.lora.dropout", "tuning.lora.target_modules",
    "train.epochs", "train.learning_rate", "train.lr", "train.batch_size", "train.grad_accum",
    "train.per_device_train_batch_size", "train.gradient_accumulation_steps", "train.warmup_ratio",
    "train.num_warmup_steps", "train.warmup_steps", "train.lr_scheduler_type", "train.optim", "train.bf16",
    "train.gradient_checkpointing", "train.eval_strategy", "train.evaluation_strategy", "train.eval_steps",
    "train.save_strategy", "train.save_steps", "train.load_best_model_at_end", "train.metric_for_best_model",
    "train.output_dir", "train.report_to", "train.run_name", "train.resume_from_checkpoint", "data.format",
    "data.template_path", "data.train_path", "data.val_path", "logging.backend", "logging.project",
)  # fmt: skip
"""Keys that are read by what they mean."""

KEYS: Final = frozenset({*SETTINGS, *IDLE, *REFUSED, *EXTRA})
_ROWS: Final = "data/processed"
STYLED: Final = "data/processed_with_style"
"""Where `hone style` writes, with style.json beside the rows."""
SPOKEN: Final[Mapping[str, str]] = {key.replace(".", "_").upper(): key for key in KEYS}
"""Keys by how they are written on the command line of make."""
_AUTO_PASSES: Final = 8
_OPTIMIZERS: Final = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "paged_adamw_32bit": "paged_adamw",
    "adafactor": "adafactor",
}
_SCHEDULES: Final = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
_TRACKERS: Final = ("tensorboard", "wandb", "trackio", "mlflow")


def read(nodes: Mapping[str, Node], file: str, environment: Mapping[str, str]) -> Translation:
    """What a file of SFT-Play comes to. `nodes` are its leaves by dotted name."""
    del environment
    theirs = Foreign(LANGUAGE, nodes, file, KEYS)
    theirs.read_tables(SETTINGS, IDLE, REFUSED)
    _read_model(theirs)
    _read_tuning(theirs)
    held_out = _read_rows(theirs)
    _read_training(theirs)
    _read_checkpoints(theirs, file, held_out=held_out)
    _read_trackers(theirs)
    return theirs.finish()


def _read_model(theirs: Foreign) -> None:
    theirs.put("model.name", theirs.text("model.name", "Qwen/Qwen2.5-1.5B-Instruct"), "model.name")
    revision = theirs.text("model.revision", "main")
    if revision != "main" and not Path(str(theirs.made.values["model.name"])).is_dir():
        theirs.put("model.revision", revision, "model.revision")
    if (kind := theirs.text("model.type", "causal")) != "causal":
        theirs.complain(
            "model.type",
            f"model.type: {kind} is not among what Hone trains",
            "name a causal model: type: causal",
        )
    if not theirs.said("model.max_seq_len"):
        theirs.put("data.max_length", 512, "model.max_seq_len")
    theirs.put("data.too_long", "cut", "model.max_seq_len")


def _read_tuning(theirs: Foreign) -> None:
    mode = theirs.text("tuning.mode", "qlora")
    if mode not in ("qlora", "lora", "full"):
        theirs.complain(
            "tuning.mode", f"tuning.mode: {mode}", nearest(mode, ("qlora", "lora", "full"))
        )
        mode = "qlora"
    theirs.put("tuning.method", mode, "tuning.mode")
    backend = theirs.text("tuning.backend", "bnb")
    if backend == "unsloth":
        theirs.put("model.loader", backend, "tuning.backend")
    elif backend != "bnb":
        theirs.complain(
            "tuning.backend", f"tuning.backend: {backend}", nearest(backend, ("bnb", "unsloth"))
        )
    lora = {"r": 32, "alpha": 64.0, "dropout": 0.05}
    for key, default in lora.items():
        value = theirs.number(f"tuning.lora.{key}", default)
        if mode != "full":
            theirs.put(f"tuning.lora.{key}", value, f"tuning.lora.{key}")
    targets = theirs.words("tuning.lora.target_modules")
    if mode != "full":
        whole = not targets or targets == ["auto"]
        theirs.put(
            "tuning.lora.target_modules",
            "all-linear" if whole else targets,
            "tuning.lora.target_modules",
        )
    elif any(key.startswith("tuning.lora.") for key in theirs.nodes):
        theirs.remark("tuning.lora has no effect: tuning.mode is full")


def _read_rows(theirs: Foreign) -> bool:
    """Take the places of rows; returns whether some are held out."""
    task = theirs.text("task_mode") or theirs.text("mode", "sft")
    theirs.take("mode")
    sources = theirs.take("datasets")
    shape = theirs.text("data.format", "chat")
    if shape not in ("chat", "jsonl", "json", "auto", "rendered"):
        theirs.complain(
            "data.format", f"data.format: {shape}", "write chat, or remove it: rows are recognised"
        )
    folder = _rows_folder()
    if folder == STYLED and not theirs.said("data.train_path") and task == "sft":
        theirs.remark(f"rows with a style are trained on: {STYLED}, newer than {_ROWS}")
    train = theirs.text("data.train_path", f"{folder}/train.jsonl")
    held_out = theirs.text("data.val_path", f"{folder}/val.jsonl")
    if isinstance(sources, list):
        _read_sources(theirs, cast("list[Any]", sources))
    elif task == "sft":
        theirs.put("data.path", train, "data.train_path")
    else:
        theirs.put(
            "data.path", theirs.text("data.train_path", f"{_ROWS}/cpt.jsonl"), "data.train_path"
        )
    if task not in ("sft", "cpt", "cpt_mixed"):
        theirs.complain(
            "task_mode", f"task_mode: {task}", nearest(task, ("sft", "cpt", "cpt_mixed"))
        )
    named = theirs.said("data.val_path")
    holds = named or (task == "sft" and not isinstance(sources, list))
    if holds and not named and Path(train).is_file() and not Path(held_out).is_file():
        theirs.remark(f"{held_out} is not there, so no rows are held out")
        holds = False
    if holds:
        theirs.put("data.validation_path", held_out, "data.val_path")
    template = theirs.text("data.template_path")
    if template and (Path(template).is_file() or template.endswith("default.jinja")):
        known = template if Path(template).is_file() else "chatml"
        theirs.put("data.template", known, "data.template_path")
    elif template:
        theirs.put("data.template", template, "data.template_path")
    return holds


def _rows_folder() -> str:
    """Where the rows lie, if no key says it: those that got a style, unless others were processed after them."""
    try:
        styled = Path(STYLED, "style.json").stat().st_mtime_ns
        processed = Path(_ROWS, "train.jsonl").stat().st_mtime_ns
    except OSError:
        return _ROWS
    return STYLED if styled >= processed else _ROWS


def _read_sources(theirs: Foreign, sources: list[Any]) -> None:
    made: list[dict[str, object]] = []
    shapes = {"cpt": "text", "chat": "auto"}
    for place, one in enumerate(sources):
        told = cast("dict[str, Any]", one) if isinstance(one, dict) else {}
        kind = str(told.get("type", "chat"))
        if kind not in shapes or not told.get("path"):
            theirs.complain(
                "datasets",
                f"datasets[{place}] needs a path, and a type that is cpt or chat",
                "write both",
            )
            continue
        entry: dict[str, object] = {"path": told["path"], "format": shapes[kind]}
        entry |= {key: told[key] for key in ("weight", "name") if told.get(key) is not None}
        made.append(entry)
        for key in set(told) - {"path", "type", "weight", "name"}:
            theirs.complain("datasets", f"datasets[{place}].{key} has no counterpart", "remove it")
    theirs.put("data.sources", made, "datasets")


def _read_training(theirs: Foreign) -> None:
    theirs.put("train.seed", theirs.whole("seed", 42), "seed")
    theirs.put("train.epochs", theirs.number("train.epochs", 3.0), "train.epochs")
    rate = theirs.number("train.learning_rate", 0.0) or theirs.number("train.lr", 2e-4)
    theirs.take("train.lr")
    theirs.put(
        "train.learning_rate",
        rate,
        "train.lr" if theirs.said("train.lr") else "train.learning_rate",
    )
    if not theirs.said("train.weight_decay"):
        theirs.put("train.weight_decay", 0.01, "train.weight_decay")
    for key, table, name in (
        ("train.lr_scheduler_type", _SCHEDULES, "train.schedule"),
        ("train.optim", _OPTIMIZERS, "train.optimizer"),
    ):
        word = theirs.text(key, "cosine" if table is _SCHEDULES else "adamw_torch")
        if word not in table:
            theirs.complain(key, f"{key}: {word} is not offered", nearest(word, table))
        theirs.put(name, table.get(word, next(iter(table.values()))), key)
    steps = theirs.whole("train.num_warmup_steps", 0) or theirs.whole("train.warmup_steps", 0)
    theirs.take("train.warmup_steps")
    ratio = theirs.number("train.warmup_ratio", 0.06)
    if steps:
        theirs.put("train.warmup_steps", steps, "train.num_warmup_steps")
    else:
        theirs.put("train.warmup_ratio", ratio, "train.warmup_ratio")
    theirs.truth("train.bf16", default=True)
    theirs.put("train.precision", "bf16" if _asks_bf16(theirs) else "auto", "train.bf16")
    if theirs.said("train.gradient_checkpointing"):
        again = theirs.truth("train.gradient_checkpointing")
        theirs.put(
            "compute.gradient_checkpointing",
            "auto" if again else False,
            "train.gradient_checkpointing",
        )
    said = theirs.take("train.resume_from_checkpoint")
    if said not in (None, True, False, "auto"):
        theirs.complain(
            "train.resume_from_checkpoint",
            "a run resumes in its own folder",
            "remove it: the same command goes on",
        )
    _read_batch(theirs)


def _asks_bf16(theirs: Foreign) -> bool:
    return theirs.said("train.bf16") and theirs.truth("train.bf16")


def _read_batch(theirs: Foreign) -> None:
    """Rows of a step: `auto` is one row a pass, and eight passes; there it depends on the card's free memory."""
    found: list[int] = []
    for keys, default in (
        (("train.batch_size", "train.per_device_train_batch_size"), 1),
        (("train.grad_accum", "train.gradient_accumulation_steps"), _AUTO_PASSES),
    ):
        key = next((one for one in keys if theirs.said(one)), keys[0])
        for one in keys:
            theirs.take(one)
        is_auto = theirs.take(key) in (None, "auto")
        found.append(default if is_auto else theirs.whole(key, default))
        if is_auto and default == _AUTO_PASSES:
            theirs.remark(
                f"{key}: auto is {default} passes a step here; there it follows the card's free memory"
            )
    theirs.made.rows_per_device = found[0] * found[1]
    theirs.put("train.batch_size", found[0] * found[1], "train.batch_size")


def _read_checkpoints(theirs: Foreign, file: str, *, held_out: bool) -> None:
    named = theirs.text("train.output_dir")
    theirs.put("output.dir", named or f"outputs/{Path(file).stem}", "train.output_dir")
    saves = theirs.text("train.save_strategy", "steps")
    every = theirs.whole("train.save_steps", 10)
    if saves == "steps":
        theirs.put("train.save_steps", every, "train.save_steps")
    else:
        theirs.remark(
            f"train.save_strategy: {saves}: ten checkpoints are kept over the run, so that it can be resumed"
        )
    key = (
        "train.eval_strategy" if theirs.said("train.eval_strategy") else "train.evaluation_strategy"
    )
    said = theirs.take(key)
    theirs.take("train.eval_strategy")
    theirs.take("train.evaluation_strategy")
    evaluates = "no" if said is False else str(said or "steps")
    steps = theirs.whole("train.eval_steps", 10)
    if held_out and evaluates == "steps":
        theirs.put("train.eval_steps", steps, "train.eval_steps")
    elif held_out:
        theirs.remark(f"{key}: {evaluates}: held-out rows are gone through at each checkpoint")
    elif theirs.said("train.eval_steps"):
        theirs.remark("train.eval_steps has no effect: no rows are held out")
    metric = theirs.text("train.metric_for_best_model", "eval_loss")
    best = theirs.truth("train.load_best_model_at_end", default=held_out and evaluates != "no")
    if best and metric not in ("eval_loss", "loss"):
        theirs.complain(
            "train.metric_for_best_model", f"train.metric_for_best_model: {metric} is not measured while it trains",
            "write eval_loss; `hone evaluate` measures the rest afterwards",
        )  # fmt: skip
    theirs.put("train.best_at_end", best and held_out, "train.load_best_model_at_end")


def _read_trackers(theirs: Foreign) -> None:
    told = [*theirs.words("train.report_to"), *theirs.words("logging.backend")]
    told = list(dict.fromkeys(name for name in told if name not in ("none", "False")))
    for name in told:
        if name not in _TRACKERS:
            theirs.complain("logging.backend", f"{name} is not told here", nearest(name, _TRACKERS))
    known = [name for name in told if name in _TRACKERS]
    theirs.put("output.trackers", known, "logging.backend")
    key = "train.run_name" if theirs.said("train.run_name") else "run_name"
    name = theirs.text(key)
    theirs.take("run_name")
    theirs.take("train.run_name")
    named = [one for one in known if one != "tensorboard"]
    if name and named:
        theirs.put("output.track.name", name, key)
    if theirs.said("logging.project") and named:
        theirs.map({"logging.project": "output.track.project"})
    theirs.take("logging.project")
