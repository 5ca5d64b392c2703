"""What a user says of a trainable model and of one call of training, checked as it is said. It knows no backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, cast

from hone.errors import ConfigError, nearest
from hone.trainable.schedule import check_count, check_rate

DEFAULT_BATCH_SIZE: Final = 2
"""What `batch_size="auto"` comes to."""


@dataclass(kw_only=True)
class TrainSFTConfig:
    """One call of `train_sft`."""

    learning_rate: float | list[float] = 5e-5
    """One for all gradient steps, or one for each."""
    batch_size: int | Literal["auto"] = "auto"
    """Trajectories in a gradient step; `auto` is 2."""
    assistant_turns: Literal["all", "last"] = "all"
    """Which assistant turns are trained: all of a trajectory, or only its last message."""

    def __post_init__(self) -> None:
        if isinstance(self.learning_rate, Sequence) and not isinstance(self.learning_rate, str):
            self.learning_rate = list(self.learning_rate)
            for place, rate in enumerate(self.learning_rate):
                check_rate(rate, f"learning_rate[{place}]")
        else:
            check_rate(self.learning_rate, "learning_rate")
        if self.batch_size != "auto":
            check_count(self.batch_size, "batch_size")
        if self.assistant_turns not in ("all", "last"):
            raise ConfigError(
                f"assistant_turns: unknown {self.assistant_turns!r}",
                remedy=nearest(str(self.assistant_turns), ("all", "last")),
            )


def resolve_sft_batch_size(batch_size: int | Literal["auto"]) -> int:
    """Trajectories in a gradient step."""
    if batch_size == "auto":
        return DEFAULT_BATCH_SIZE
    check_count(batch_size, "batch_size")
    return batch_size


@dataclass(kw_only=True, frozen=True)
class LoRAConfig:
    """The adapter that a trainable model has; fixed when it is registered for the first time."""

    rank: int = 8
    """Columns of the low-rank update."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of the adapter's inputs set to zero in training."""
    target_modules: str | list[str] = "all-linear"
    """Which layers get one: `all-linear`, a list of module names, or one regular expression over whole names."""
    use_rslora: bool = False
    """Scaled by alpha / sqrt(rank) instead."""
    use_dora: bool = False
    """With a trained magnitude for each output (DoRA)."""
    bias: str = "none"
    """Only `none`: biases stay as they are."""
    init_weights: bool | str = True
    """How it begins: True, `gaussian`, `orthogonal` or `loftq`."""

    def __post_init__(self) -> None:
        if self.bias != "none":
            raise ConfigError(f"lora_config: bias={self.bias!r} is not offered", remedy="remove it")
        if self.init_weights is not True and self.init_weights not in _BEGINNINGS:
            raise ConfigError(
                f"lora_config: init_weights={self.init_weights!r} is not offered for a trainable model",
                remedy=f"allowed: True, {', '.join(_BEGINNINGS)}",
            )

    @classmethod
    def of(cls, said: LoRAConfig | Mapping[str, Any] | None) -> LoRAConfig:
        """From a dictionary too. Raises ConfigError with the nearest name for an unknown key."""
        if said is None or isinstance(said, LoRAConfig):
            return said or cls()
        known = [field.name for field in fields(cls)]
        for key in said:
            if key not in known:
                raise ConfigError(f"lora_config: unknown key {key!r}", remedy=nearest(key, known))
        return cls(**said)

    def as_setting(self) -> dict[str, Any]:
        """As Hone's `tuning.lora`."""
        return {
            "r": self.rank,
            "alpha": self.alpha,
            "dropout": self.dropout,
            "target_modules": self.target_modules,
            "rslora": self.use_rslora,
            "dora": self.use_dora,
            "init": "default" if self.init_weights is True else self.init_weights,
        }


_BEGINNINGS: Final = ("gaussian", "orthogonal", "loftq")

_INIT_KEYS: Final = ("max_seq_length", "load_in_4bit", "dtype", "revision")
_DTYPES: Final = {"auto": "auto", "bfloat16": "bf16", "float32": "fp32"}
_INTERNAL_KEYS: Final = (
    "init_args",
    "engine_args",
    "chat_template",
    "chat_template_path",
    "chat_template_kwargs",
    "chat_template_tool_schema_format",
)
_ELSEWHERE: Final[Mapping[str, str]] = {
    "peft_args": "say lora_config=LoRAConfig(...): r is rank, lora_alpha is alpha, lora_dropout is dropout, "
    "init_lora_weights is init_weights",
    "trainer_args": "TrainSFTConfig says how a call trains, lora_config what",
    "trainer_gpu_ids": "choose GPUs with CUDA_VISIBLE_DEVICES",
    "inference_gpu_ids": "choose GPUs with CUDA_VISIBLE_DEVICES",
    "rollout_weights_mode": "remove it: adapters are served beside their base",
    "vllm_runtime": "remove it: the backend starts what serves the model",
    "tinker_args": "remove it: that service is not a backend here",
    "allow_unvalidated_arch": "remove it: what a model allows is found by a probe on its weights",
    "chat_template_content_format": "remove it: messages are given to the template in the form that it wants",
}
_ENGINE_ARGS: Final = (
    "disable_log_requests",
    "dtype",
    "enable_prefix_caching",
    "enable_sleep_mode",
    "enforce_eager",
    "gpu_memory_utilization",
    "kv_cache_dtype",
    "max_loras",
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "quantization",
    "swap_space",
    "tensor_parallel_size",
)
"""The usual ones of vLLM's engine, to tell a misspelt name by."""


@dataclass(frozen=True)
class Internals:
    """`_internal_config`, checked."""

    init_args: Mapping[str, Any]
    engine_args: Mapping[str, Any]
    chat_template: str | None
    chat_template_path: str | None
    chat_template_kwargs: Mapping[str, Any]
    tool_schema: str

    @property
    def precision(self) -> str:
        """Arithmetic of the step, as Hone's `train.precision` names it: what `init_args` calls `dtype`."""
        said = self.init_args.get("dtype")
        name = "auto" if said is None else str(said).removeprefix("torch.")
        if name not in _DTYPES:
            raise ConfigError(
                f"_internal_config: init_args: dtype {name!r} is not offered",
                remedy=nearest(name, _DTYPES),
            )
        return _DTYPES[name]

    @classmethod
    def of(cls, said: Mapping[str, Any] | None) -> Internals:
        """Raises ConfigError for a key that has no object here, with what says the same."""
        told = dict(said or {})
        for key in told:
            if key not in _INTERNAL_KEYS:
                remedy = _ELSEWHERE.get(key) or nearest(key, _INTERNAL_KEYS)
                raise ConfigError(f"_internal_config: {key!r} is not known here", remedy=remedy)
        if told.get("chat_template") and told.get("chat_template_path"):
            raise ConfigError(
                "_internal_config: chat_template and chat_template_path exclude each other",
                remedy="keep one of them",
            )
        init = _section(told, "init_args")
        for key in init:
            if key not in _INIT_KEYS:
                hint = "set HF_TOKEN in the environment" if key == "token" else ""
                raise ConfigError(
                    f"_internal_config: init_args has the unknown key {key!r}",
                    remedy=hint or nearest(key, _INIT_KEYS),
                )
        engine = _section(told, "engine_args")
        _check_engine(engine)
        return cls(
            init,
            engine,
            told.get("chat_template"),
            told.get("chat_template_path"),
            _section(told, "chat_template_kwargs"),
            str(told.get("chat_template_tool_schema_format") or "default"),
        )


def _section(told: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = told.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"_internal_config: {key} is a dictionary; found {value!r}")
    return dict(cast("Mapping[str, Any]", value))


def _check_engine(engine: Mapping[str, Any]) -> None:
    for key in engine:
        remedy = nearest(key, _ENGINE_ARGS)
        if key not in _ENGINE_ARGS and remedy.startswith("did you mean"):
            raise ConfigError(f"_internal_config: engine_args: {key!r}", remedy=remedy)
    share = engine.get("gpu_memory_utilization")
    if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
        raise ConfigError(
            f"_internal_config: gpu_memory_utilization is a share of the GPU's memory; found {share!r}",
            remedy="give a number above 0, at most 1, e.g. 0.7",
        )
