"""What becomes of each name in a DeepSpeed file: DeepSpeed heeds it, it has no effect here, or it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from hone.errors import ConfigError, nearest

OURS: Final = frozenset(
    {
        "bf16", "data_types", "fp16", "gradient_accumulation_steps", "gradient_clipping", "optimizer",
        "scheduler", "train_batch_size", "train_micro_batch_size_per_gpu", "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer", "zero_optimization",
    }
)  # fmt: skip
"""Read against our own configuration."""
_HEEDED: Final = frozenset(
    {
        "comms_logger", "csv_monitor", "disable_allgather", "disable_python_gc", "dump_state", "flops_profiler",
        "gradient_predivide_factor", "log_level", "memory_breakdown", "prescale_gradients", "steps_per_print",
        "tensorboard", "timers", "wall_clock_breakdown", "wandb",
    }
)  # fmt: skip
_IDLE: Final[Mapping[str, str]] = {
    "activation_checkpointing": "set compute.gradient_checkpointing",
    "aio": "nothing is offloaded to a disk",
    "checkpoint": "checkpoints are Hone's own",
    "comms_config": "DeepSpeed does not read it",
    "compile": "the model is not compiled",
    "dataloader_drop_last": "rows are laid out by Hone",
    "monitor_config": "DeepSpeed does not read it; set output.trackers",
    "nebula": "checkpoints are Hone's own",
}
_OTHER_RESULTS: Final = frozenset(
    {
        "amp", "communication_data_type", "compression_training", "curriculum_learning", "data_efficiency",
        "eigenvalue", "elasticity", "gradient_allreduce_op", "hybrid_engine", "progressive_layer_drop",
        "quantize_training", "sparse_attention", "sparse_gradients", "torch_autocast", "weight_quantization",
    }
)  # fmt: skip
_HARMLESS: Final[Mapping[str, object]] = {
    "communication_data_type": "fp32",
    "gradient_allreduce_op": "mean",
}
_PARALLEL: Final = {
    "expert_parallel": "autoep_size",
    "pipeline": "stages",
    "sequence_parallel_size": None,
    "tensor_parallel": "autotp_size",
}

_ZERO_HEEDED: Final = frozenset(
    {
        "allgather_bucket_size", "allgather_partitions", "allgather_sequential", "contiguous_gradients",
        "cpu_offload", "cpu_offload_params", "cpu_offload_use_pin_memory", "enable_sanity_checks",
        "ignore_unused_parameters", "legacy_stage1", "log_trace_cache_warnings", "memory_efficient_linear",
        "offload_optimizer", "offload_param", "overlap_comm", "reduce_bucket_size", "reduce_scatter",
        "round_robin_gradients", "stage", "stage3_allgather_sequential", "stage3_max_live_parameters",
        "stage3_max_reuse_distance", "stage3_model_persistence_threshold",
        "stage3_module_granularity_threshold", "stage3_param_persistence_threshold",
        "stage3_prefetch_bucket_size", "stage3_use_all_reduce_for_fetch_params", "sub_group_size",
        "use_multi_rank_bucket_allreduce",
    }
)  # fmt: skip
_ZERO_IDLE: Final[Mapping[str, str]] = {
    "elastic_checkpoint": "checkpoints are Hone's own",
    "load_from_fp32_weights": "checkpoints are Hone's own",
    "pipeline_loading_checkpoint": "checkpoints are Hone's own",
    "stage3_gather_16bit_weights_on_model_save": "the artifact always holds whole weights",
    "stage3_gather_fp16_weights_on_model_save": "the artifact always holds whole weights",
}
_ZERO_OTHER_RESULTS: Final = frozenset(
    {
        "mics_hierarchical_params_gather", "mics_shard_size", "zenflow", "zero_hpz_partition_size",
        "zero_quantized_gradients", "zero_quantized_nontrainable_weights", "zero_quantized_weights",
    }
)  # fmt: skip


def check_names(settings: Mapping[str, Any], where: str) -> list[str]:
    """What of a file has no effect, in words. Raises ConfigError for an unknown name, and for what no run can be."""
    _refuse_parallel(settings, where)
    found = _check(
        settings, OURS | _HEEDED | set(_PARALLEL), _IDLE, _OTHER_RESULTS, where=where, inside=""
    )
    section: object = settings.get("zero_optimization")
    if isinstance(section, dict):
        found += _check(
            cast("dict[str, Any]", section),
            _ZERO_HEEDED,
            _ZERO_IDLE,
            _ZERO_OTHER_RESULTS,
            where=where,
            inside="zero_optimization.",
        )
    return found


def _check(
    settings: Mapping[str, Any],
    heeded: frozenset[str] | set[str],
    idle: Mapping[str, str],
    other_results: frozenset[str],
    *,
    where: str,
    inside: str,
) -> list[str]:
    told: list[str] = []
    for key, value in settings.items():
        if key.startswith("_") or key in heeded:  # `_comment`
            continue
        if key in idle:
            if _is_on(value):
                told.append(f"compute.deepspeed: {inside}{key} has no effect: {idle[key]}")
        elif key in other_results:
            if _is_on(value) and value != _HARMLESS.get(key):
                raise ConfigError(
                    f"{inside}{key} would change what a step computes, or where weights lie",
                    where=where,
                    remedy="remove it from the file",
                )
        else:
            known = sorted({*heeded, *idle, *other_results})
            raise ConfigError(
                f"{inside}{key}: no such setting of DeepSpeed",
                where=where,
                remedy=f"{nearest(key, known)}; DeepSpeed itself would pass over it without a word",
            )
    return told


def _is_on(value: object) -> bool:
    """Whether a section or a flag says something: not absent, off or left to us."""
    if isinstance(value, Mapping):
        section = cast("Mapping[str, object]", value)
        return bool(section.get("enabled", len(section) > 0))
    return value not in (None, False, "auto", -1, 1) or value is True


def _refuse_parallel(settings: Mapping[str, Any], where: str) -> None:
    for key, inner in _PARALLEL.items():
        section = settings.get(key)
        size: object = section
        if isinstance(section, dict) and inner is not None:
            size = cast("dict[str, Any]", section).get(inner)
        if isinstance(size, int) and size > 1:
            name = key if inner is None else f"{key}.{inner}"
            raise ConfigError(
                f"{name} is {size}: Hone splits a step over ranks by rows, not a layer or a row over ranks",
                where=where,
                remedy="use ZeRO stage 3 (zero3, zero3-offload) or compute.strategy=fsdp where the model is "
                "too large for one device, and compute.gradient_checkpointing=true where rows are too long",
            )
