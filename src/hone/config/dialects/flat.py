"""The flat configuration of `SFTTrainer`: one table of its keys, and what each is in the one configuration.

    config = SFTConfig(base_model="gpt2", dataset_name="rows.jsonl", dataset_format="alpaca")
    config.max_steps = 100        # checked when set, as everything is
    config.resolved()             # the same in our settings

Nothing here says how to train: every value goes through a setting of `hone.config.sections`, whose bounds hold too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from hone.config.complaints import Complaint, raise_complaints
from hone.config.fields import Setting, walk
from hone.config.files import read_config
from hone.config.layers import Resolved, resolve_values
from hone.config.sections import Count, Number, Positive, Share
from hone.config.values import fit
from hone.config.write import to_yaml
from hone.errors import ConfigError, DiskError, UnknownSetting, nearest

TEMPLATES: Final = (
    "alpaca", "chatml", "gemma", "human", "llama2", "llama3", "mistral", "phi", "plain", "qwen", "qwen3",
    "qwen3_nothink",
)  # fmt: skip
"""Chat templates by name, as `data.template` knows them."""

INPUT_HEADING: Final = "### Input:"
"""What stands above the input of an Alpaca row in the Alpaca template."""

SETTINGS: Final[Mapping[str, str]] = {
    "base_model": "model.name",
    "dataset_name": "data.path",
    "dataset_format": "data.format",
    "dataset_split": "data.split",
    "dataset_text_field": "data.columns",
    "validation_split": "data.validation_split",
    "max_seq_length": "data.max_length",
    "template_name": "data.template",
    "lora_r": "tuning.lora.r",
    "lora_alpha": "tuning.lora.alpha",
    "lora_dropout": "tuning.lora.dropout",
    "lora_target_modules": "tuning.lora.target_modules",
    "batch_size": "train.batch_size",
    "num_devices": "compute.nproc",
    "learning_rate": "train.learning_rate",
    "num_epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "warmup_ratio": "train.warmup_ratio",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.max_grad_norm",
    "optimizer_type": "train.optimizer",
    "scheduler_type": "train.schedule",
    "mixed_precision": "train.precision",
    "seed": "train.seed",
    "save_steps": "train.save_steps",
    "eval_steps": "train.eval_steps",
    "save_total_limit": "train.save_total_limit",
    "gradient_checkpointing": "compute.gradient_checkpointing",
    "device_map": "compute.device",
    "output_dir": "output.dir",
    "wandb_entity": "output.track.entity",
    "wandb_project": "output.track.project",
    "wandb_run_name": "output.track.name",
}
"""Each key that is a setting of ours under another name. `batch_size` is per device here, and `use_lora` and
`use_qlora` together are `tuning.method`."""

_ASIDE: Final[Mapping[str, str]] = {
    "use_lora": "tuning.method",
    "use_qlora": "tuning.method",
    "gradient_accumulation_steps": "train.batch_size",
    "packing": "rows stand together in Packs either way, and see nothing of each other",
    "logging_steps": "the lines that the trainer writes",
    "checkpoint_dir": "copies that the trainer writes",
    "save_merged_model": "what the trainer writes in the end",
    "run_name": "output.track.name",
}
"""The other keys, and where they go."""

_METHODS: Final = {(False, False): "full", (True, False): "lora", (True, True): "qlora"}
_OPTIMIZERS: Final = {
    "adamw": "adamw",
    "paged_adamw_32bit": "paged_adamw",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
_FORMATS: Final = {"alpaca": "alpaca", "chat": "messages", "completion": "text"}
_TEMPLATE_OF: Final = {"alpaca": "alpaca", "chat": "chatml", "completion": "plain"}
_AS_IT_IS: Final = (
    "base_model", "dataset_name", "validation_split", "max_seq_length", "learning_rate", "num_epochs",
    "max_steps", "warmup_ratio", "weight_decay", "max_grad_norm", "scheduler_type", "seed", "save_steps",
    "save_total_limit", "gradient_checkpointing", "device_map", "output_dir",
)  # fmt: skip
_OF_ADAPTERS: Final = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
_EXAMPLE: Final = "begin with a key, e.g. `base_model: gpt2`"

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


class SFTConfig(BaseModel):
    """What an `SFTTrainer` is to do, in flat keys. Each is checked when it is set, later ones too.

    Raises ConfigError (a ValueError) for a value that cannot be used, UnknownSetting (a TypeError, and an
    AttributeError) for a key that is none.
    """

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )

    base_model: Text
    """Base model: a folder, or a hub id such as `gpt2`."""
    dataset_name: Text
    """Rows: a file, a folder of files, or a hub id such as `tatsu-lab/alpaca`."""
    dataset_format: Literal["alpaca", "chat", "completion"]
    """Shape of a row: `alpaca` (instruction, input, output), `chat` (messages, or conversations), `completion` (text, or prompt and completion)."""
    dataset_split: Text = "train"
    """Which split of a folder or hub dataset."""
    dataset_text_field: str | None = None
    """The column of plain text in rows of `completion`. Unset: recognised."""
    validation_split: Share = 0.1
    """Share of the rows held out for the validation loss, 0 to 1. 0: no validation."""
    max_seq_length: Annotated[int, Field(ge=2)] = 2048
    """Longest row, in tokens; of a longer one the beginning is kept, and counted. Unset: 2048, or the model's own limit where that is less."""
    template_name: str | None = None
    """Chat template: `alpaca`, `chatml`, `llama2` and more, or a Jinja file. Unset: alpaca for `alpaca`, chatml for `chat`, plain for `completion`."""

    use_lora: bool = True
    """Train an adapter; false trains every weight."""
    use_qlora: bool = False
    """Hold the base in 4 bits (NF4, double quantisation) beside the adapter."""
    lora_r: Count = 8
    """Rank of the adapter."""
    lora_alpha: Positive = 16.0
    """The adapter's update is scaled by alpha / r."""
    lora_dropout: Share = 0.05
    """Share of the adapter's inputs set to zero in training."""
    lora_target_modules: str | list[str] | None = None
    """Which layers get an adapter: module names, or one regular expression. Unset: every linear layer of the model."""

    batch_size: Count = 4
    """Rows per device and pass; a step has batch_size x gradient_accumulation_steps x num_devices rows."""
    gradient_accumulation_steps: Count = 4
    """Passes per step."""
    num_devices: Count = 1
    """Devices that share a step."""
    learning_rate: Positive = 2e-4
    """Peak learning rate."""
    num_epochs: Positive = 3.0
    """Passes over the rows."""
    max_steps: Count | None = None
    """Steps in all, overriding `num_epochs`."""
    warmup_ratio: Share = 0.03
    """Share of all steps in which the learning rate rises from 0."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.001
    """Decoupled weight decay."""
    max_grad_norm: Annotated[Number, Field(ge=0)] = 0.3
    """Global gradient norm above which the gradient is scaled down; 0: never."""
    optimizer_type: Literal["adamw", "paged_adamw_32bit", "paged_adamw_8bit"] = "paged_adamw_32bit"
    """What moves the weights. Paging lets moments leave a full GPU; without a GPU `paged_adamw_32bit` is `adamw`, which moves them alike."""
    scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after the warmup."""
    mixed_precision: Literal["bf16", "fp16"] | None = "bf16"
    """Arithmetic of the step: `bf16`, or null for float32. `fp16` is refused."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Recompute activations in the backward pass: less memory, more time, the same result. `auto`: in as few layers as memory asks for."""
    packing: bool = False
    """Rows of a step stand together in one pass and see nothing of each other, whatever stands here: the result is that of rows one by one."""
    device_map: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the step is computed. `auto`: a GPU where one is here."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Names the run's randomness: order, adapter initialisation, dropout. Held-out rows are chosen by what they say."""

    logging_steps: Count = 10
    """Steps between the lines that tell the loss."""
    save_steps: Count = 100
    """Steps between checkpoints."""
    eval_steps: Count | None = None
    """Steps between validations. Unset: 500, and at the end of each epoch."""
    output_dir: Text = "./sft_outputs"
    """Folder of the run, and of the adapter in the end. The same call resumes in it."""
    checkpoint_dir: str | None = None
    """Where a loadable copy of the adapter goes at every save, beside the run's own checkpoints in `output_dir`. Unset: none."""
    save_total_limit: Count = 3
    """Checkpoints kept."""
    save_merged_model: bool = False
    """Write the unquantised base with the adapter merged into it to `merged` in `output_dir`, for plain transformers to load."""
    wandb_project: str | None = None
    """Project at Weights & Biases; unset: it is told nothing."""
    wandb_entity: str | None = None
    """User or team that owns the project."""
    wandb_run_name: str | None = None
    """What the run is called there. Unset: `run_name`."""
    run_name: str | None = None
    """What the run is called. Unset: the name of its folder."""

    _said: dict[str, str] = PrivateAttr(default_factory=dict[str, str])

    if not TYPE_CHECKING:  # a checker sees the fields as parameters and attributes

        def __init__(self, said: Mapping[str, str] | None = None, /, **values: Any) -> None:
            """`said` tells where each key was said, "" the file."""
            _refuse_unknown(values, said or {})
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise_complaints(list(_complaints(error, said or {})))
            self._said.update(said or {})

        def __setattr__(self, name: str, value: Any) -> None:
            if name in type(self).model_fields:
                checked = type(self)(**{**self.to_dict(), name: value})
                value = getattr(checked, name)
                self._said.pop(name, None)
            elif not name.startswith("_"):
                _refuse_unknown([name], {})
            super().__setattr__(name, value)

        def __eq__(self, other: object) -> bool:
            """Where a value was said is no part of it."""
            return isinstance(other, SFTConfig) and self.to_dict() == other.to_dict()

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_"):
                _refuse_unknown([name], {})
            return super().__getattr__(name)

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _no_half_floats(cls, value: object) -> object:
        if value == "fp16":
            raise ValueError(
                "mixed_precision='fp16' is not offered: float16 gradients vanish without loss scaling, and bf16 "
                "needs none; set mixed_precision='bf16', or None for float32"
            )
        return value

    @field_validator("template_name")
    @classmethod
    def _template_that_is_known(cls, value: str | None) -> str | None:
        if value is None or value in TEMPLATES or "/" in value or value.endswith(".jinja"):
            return value
        raise ValueError(
            f"template_name: there is no template {value!r}; {nearest(value, TEMPLATES)}, or a .jinja file"
        )

    @model_validator(mode="after")
    def _keys_that_fit(self) -> Self:
        if self.use_qlora and not self.use_lora:
            raise ValueError(
                "use_qlora needs use_lora: the weights of a base held in 4 bits cannot train themselves; "
                "set use_lora=True, or use_qlora=False"
            )
        if self.dataset_text_field and self.dataset_format != "completion":
            raise ValueError(
                "dataset_text_field names the text of rows of dataset_format 'completion', and these are "
                f"{self.dataset_format!r}; remove it"
            )
        self.resolved()  # our own bounds hold too
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """The configuration in a file (YAML or JSON). Raises NoSuchConfig (a FileNotFoundError) where there is none."""
        entries = read_config(Path(path), example=_EXAMPLE).entries or {}
        said = {key: f"{path}:{node.line}" for key, node in entries.items()}
        _refuse_unknown(entries, said)
        values = {key: fit(node, keys()[key].annotation) for key, node in entries.items()}
        return cast(Any, cls)({"": str(path)} | said, **values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that these values give."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value."""
        return self.model_dump()

    def to_yaml(self, path: str | Path) -> None:
        """Write every key to a file that `from_yaml` reads."""
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(to_yaml(self), encoding="utf-8")
        except OSError as error:
            raise DiskError(f"cannot write: {error.strerror}", where=str(path)) from error

    def get_effective_batch_size(self) -> int:
        """Rows per step: batch_size x gradient_accumulation_steps x num_devices."""
        return self.batch_size * self.gradient_accumulation_steps * self.num_devices

    @property
    def changed(self) -> dict[str, str]:
        """The keys whose value is not the default, and where it was said."""
        return {
            key: self._said.get(key, f"SFTConfig.{key}")
            for key, field in type(self).model_fields.items()
            if field.is_required() or getattr(self, key) != field.default
        }

    def in_ours(self) -> dict[str, object]:
        """Our settings by dotted name. What depends on the rows, the model or the machine is still to be fitted."""
        values: dict[str, object] = {SETTINGS[key]: getattr(self, key) for key in _AS_IT_IS}
        template = self.template_name or _TEMPLATE_OF[self.dataset_format]
        values |= {
            "data.format": _FORMATS[self.dataset_format],
            "data.template": template,
            "data.input_heading": INPUT_HEADING if template == "alpaca" else None,
            "data.too_long": "cut",
            "data.columns": {"text": self.dataset_text_field} if self.dataset_text_field else {},
            "tuning.method": _METHODS[self.use_lora, self.use_qlora],
            "train.batch_size": self.get_effective_batch_size(),
            "compute.nproc": self.num_devices,
            "train.optimizer": _OPTIMIZERS[self.optimizer_type],
            "train.precision": self.mixed_precision or "fp32",
        }
        for key in _OF_ADAPTERS:
            if getattr(self, key) is not None:
                values[SETTINGS[key]] = getattr(self, key)
        if self.validation_split:
            values["train.eval_steps"] = self.eval_steps or 500
        if self.dataset_split != "train":
            values["data.split"] = self.dataset_split
        if self.wandb_project is not None:
            values |= {
                "output.trackers": ["wandb"],
                "output.track.project": self.wandb_project,
                "output.track.entity": self.wandb_entity,
                "output.track.name": self.wandb_run_name or self.run_name,
            }
        return values

    def origins(self) -> dict[str, str]:
        """Our settings that a user said, and where."""
        where = {**_ASIDE, **SETTINGS}
        return {where[key]: said for key, said in self.changed.items() if "." in where[key]}

    def resolved(self) -> Resolved:
        """The one configuration that this comes to. Raises ConfigError in the words of this language."""
        try:
            return resolve_values(self.in_ours(), self.origins())
        except ConfigError as error:
            raise in_flat_words(error) from None


def keys() -> Mapping[str, Setting]:
    """Every key of the language with what it takes."""
    return {setting.name: setting for setting in walk(SFTConfig)}


_NAMES: Final = {ours: key for key, ours in SETTINGS.items()}
_NAME: Final = re.compile(
    "|".join(re.escape(name) for name in sorted(_NAMES, key=len, reverse=True))
)


def flat_words(text: str) -> str:
    """A sentence about our settings, with the keys of this language."""
    return _NAME.sub(lambda found: _NAMES[found[0]], text)


def in_flat_words(error: Any) -> Any:
    """The same error, speaking of the keys of this language."""
    for part in ("what", "where", "remedy"):
        said = getattr(error, part)
        if said is not None:
            setattr(error, part, flat_words(said))
    return error


def _refuse_unknown(names: Iterable[str], said: Mapping[str, str]) -> None:
    unknown = [name for name in names if name not in SFTConfig.model_fields]
    if not unknown:
        return
    name = unknown[0]
    if name in _NAMES:
        remedy = f"did you mean {_NAMES[name]!r}?"
    else:
        remedy = nearest(name, SFTConfig.model_fields)
    raise UnknownSetting(f"unknown key {name!r} of SFTConfig", where=said.get(name), remedy=remedy)


def _complaints(error: ValidationError, said: Mapping[str, str]) -> Iterable[Complaint]:
    """A complaint for each key that the validation refused; `said[""]` is the file."""
    seen: set[str] = set()
    for problem in error.errors(include_url=False):
        key = str(problem["loc"][0]) if problem["loc"] else ""
        if key in seen:
            continue
        seen.add(key)
        where = said.get(key) if key else None
        reason = problem.get("ctx", {}).get("error")
        if isinstance(reason, ConfigError):
            yield Complaint(reason.what, where or reason.where, reason.remedy)
        elif isinstance(reason, ValueError) and (not key or str(reason).startswith(key)):
            yield Complaint(str(reason), where, None)
        elif problem["type"] == "missing":
            yield Complaint(f"{key} is missing", said.get(""), f"add {key}: {keys()[key].wanted}")
        else:
            given = cast(object, problem["input"]) if len(problem["loc"]) == 1 else "a value in it"
            what = f"{key}: {given!r} cannot be used"
            yield Complaint(what, where, f"allowed: {keys()[key].wanted}")
