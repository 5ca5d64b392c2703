"""Tasks of EleutherAI's lm-evaluation-harness, run by it where it is installed. It knows none of our measures."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from hone.errors import ConfigError, DataError, EnvironmentFault, nearest
from hone.infer.place import Place

_SHOWN_TASKS = 40


def require_harness() -> None:
    """Raise EnvironmentFault where the harness is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise EnvironmentFault(
            "--task needs the lm-evaluation-harness, not installed here",
            remedy="pip install 'lm-eval[hf]', or leave --task out",
        )


def refuse_place(place: Place) -> None:
    """Raise ConfigError for what the harness cannot load."""
    if place.kind == "checkpoint":
        raise ConfigError(
            "--task: the harness loads folders that transformers or PEFT load, and this is a checkpoint of a run",
            where=str(place.folder),
            remedy="name the finished run, or leave --task out",
        )


def run_tasks(
    place: Place, tasks: Sequence[str], *, limit: int | None, include: Path | None
) -> dict[str, float]:
    """Every number that the harness gives, by `task/metric`; its own standard errors as `task/metric_stderr`.

    Raises ConfigError for an unknown task, DataError where the harness cannot run one (a data set that is not here,
    say).
    """
    lm_eval: Any = importlib.import_module("lm_eval")
    folder = None if include is None else str(include)
    manager: Any = importlib.import_module("lm_eval.tasks").TaskManager(include_path=folder)
    known = cast("list[str]", list(manager.all_tasks))
    for name in tasks:
        if name not in known:
            close = nearest(name, known)
            hint = close if len(known) <= _SHOWN_TASKS else close.partition(" allowed:")[0]
            raise ConfigError(
                f"the harness has no task {name!r}", remedy=hint or "`lm-eval ls tasks` lists them"
            )
    arguments: dict[str, Any] = {
        "pretrained": str(place.base),
        "tokenizer": str(place.tokenizer_folder),
        "trust_remote_code": False,
    }
    if place.kind == "adapter":
        arguments["peft"] = str(place.folder)
    try:
        found: Any = lm_eval.simple_evaluate(
            model="hf",
            model_args=arguments,
            device="cuda:0" if torch.cuda.is_available() else "cpu",  # its own default needs a GPU
            tasks=list(tasks),
            limit=limit,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=0,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ConnectionError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"the harness could not run {', '.join(tasks)}: {said[0]}",
            remedy="see its own words above; a task's data must be here or within reach",
        ) from error
    return _numbers(found["results"])


def _numbers(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    told: dict[str, float] = {}
    for task, metrics in results.items():
        for key, value in metrics.items():
            name, _, kind = key.partition(",")
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                continue
            with contextlib.suppress(ValueError):
                number = float(value)
                if kind:
                    told[f"{task}/{name}" + ("" if kind == "none" else f" ({kind})")] = number
    return told
