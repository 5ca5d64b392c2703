"""TrainableModel: a model with a name in a project, trained call by call on whatever backend it is registered with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hone.errors import ConfigError, EnvironmentFault
from hone.trainable import history
from hone.trainable.backend import Backend, SFTResult
from hone.trainable.blocking import Blocking
from hone.trainable.folder import ModelFolder, check_name
from hone.trainable.settings import Internals, LoRAConfig, TrainSFTConfig
from hone.trainable.trajectory import Trajectory, check_tool_schema

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["SFTResult", "TrainableModel"]

_TIMEOUT_SECONDS = 1200.0
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class _Registered:
    backend: Backend
    folder: ModelFolder | None


class TrainableModel:
    """A LoRA adapter with a name, over a base model.

        model = TrainableModel(name="agent-001", project="support", base_model="Qwen/Qwen3-0.6B")
        await model.register(LocalBackend())
        await model.train_sft(trajectories, TrainSFTConfig(learning_rate=1e-4))

    A **training step** is a call of `train_sft` that trained: it makes one checkpoint, and the same name in the
    same project goes on from the newest. A **gradient step** is one update of the weights, for one batch; a call
    has as many as it has batches. `base_model` is a hub id, a folder, or the folder of a LoRA adapter, which is
    then trained further with its own settings. `blocking` offers the same calls without `await`.
    """

    def __init__(
        self,
        *,
        name: str,
        project: str,
        base_model: str,
        entity: str | None = None,
        id: str | None = None,  # noqa: A002 - the name that scripts use
        run_id: str | None = None,
        config: object = None,
        lora_config: LoRAConfig | Mapping[str, Any] | None = None,
        base_path: str | Path | None = None,
        report_metrics: Sequence[str] | None = None,
        _internal_config: Mapping[str, Any] | None = None,
    ) -> None:
        """`entity`, `id` and `run_id` name the model where a service keeps it. Raises ConfigError."""
        check_name(name, "name")
        check_name(project, "project")
        if not base_model or not base_model.strip():
            raise ConfigError("base_model is empty", remedy="name a hub id or a folder")
        self.name, self.project, self.base_model = name, project, base_model
        self.entity, self.id, self.run_id = entity, id, run_id
        self.config = config
        self.lora_config = None if lora_config is None else LoRAConfig.of(lora_config)
        self.base_path = base_path
        if report_metrics:
            raise ConfigError(
                f"report_metrics={list(report_metrics)!r}: no tracker follows a trainable model yet",
                remedy="remove it: history.jsonl has every number; `hone train` has trackers",
            )
        self.internals = Internals.of(_internal_config)
        check_tool_schema(self.internals.tool_schema)
        _ = self.internals.precision  # refused now, not when it is registered
        self._registered: _Registered | None = None
        self._client: AsyncOpenAI | None = None

    def __repr__(self) -> str:
        return f"TrainableModel({self.project}/{self.name} over {self.base_model})"

    @property
    def blocking(self) -> Blocking:
        """The same calls, each returning when it is done."""
        return Blocking(self)

    @property
    def folder(self) -> ModelFolder | None:
        """Where the model lies; None where its backend keeps it elsewhere, and before it is registered."""
        return None if self._registered is None else self._registered.folder

    def settle(self, backend: Backend, folder: ModelFolder | None) -> None:
        """Told by the backend that has registered the model, and where it lies."""
        self._registered = _Registered(backend, folder)
        self._client = None

    async def register(self, backend: Backend) -> None:
        """Make the model known to `backend`. A new one gets its checkpoint of step 0, an old one goes on."""
        await backend.register(self)

    async def train_sft(
        self,
        trajectories: Iterable[Trajectory],
        config: TrainSFTConfig | None = None,
        _config: object = None,
        verbose: bool = False,
        log_metrics: bool = True,
    ) -> SFTResult:
        """Train on these rows, batch by batch in their order; one call, one checkpoint.

        The loss of a gradient step is the mean over its batch's trained tokens. Rows longer than the model's limit
        are dropped and counted. `verbose` writes the steps to standard error; `log_metrics` keeps them in the
        history. Called again after a crash with the same rows and numbers it goes on within the call.

        Raises ConfigError, DataError, OutOfMemory, NonFiniteError, EnvironmentFault and the rest of HoneError; the
        newest checkpoint is then as it was before.
        """
        if _config:
            raise ConfigError(
                f"_config={_config!r} is not known here", remedy="say it in TrainSFTConfig"
            )
        return await self._backend.train_sft(
            self,
            trajectories,
            config or TrainSFTConfig(),
            verbose=verbose,
            log_metrics=log_metrics,
        )

    async def get_step(self) -> int:
        """The training step: the number of the newest checkpoint."""
        return await self._backend.get_step(self)

    def get_inference_name(self, step: int | None = None) -> str:
        """What the endpoint calls this model: `name@step`, the newest step where none is given."""
        return self._backend.inference_name(self, step)

    def openai_client(self) -> AsyncOpenAI:
        """A client of the openai package for this model's endpoint, made once; what serves is started first."""
        if self._client is None:
            try:
                import openai
            except ImportError as error:
                raise EnvironmentFault(
                    "openai_client needs the package openai, which is not installed",
                    remedy="pip install openai",
                ) from error
            endpoint = self._backend.endpoint(self)
            self._client = openai.AsyncOpenAI(
                base_url=endpoint.base_url,
                api_key=endpoint.api_key,
                timeout=openai.Timeout(_TIMEOUT_SECONDS, connect=_CONNECT_SECONDS),
            )
        return self._client

    async def log(
        self,
        trajectories: Iterable[Trajectory] | None = None,
        split: str = "val",
        metrics: Mapping[str, float] | None = None,
        step: int | None = None,
    ) -> None:
        """Keep trajectories and numbers of a user's own with the model's history, at a training step (the newest)."""
        folder = self._here("log")
        check_name(split, "split")
        rows = list(trajectories or [])
        at = await self.get_step() if step is None else step
        told = {f"{split}/{key}": value for key, value in _means(rows).items()}
        told |= {f"{split}/{key}": value for key, value in (metrics or {}).items()}
        if rows:
            path = folder.path / "trajectories" / split / f"{at:04d}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            history.append(path, [_plain(one) for one in rows])
        if told:
            history.append(folder.history, [history.stamped(told, at)])

    async def delete_checkpoints(self, best_checkpoint_metric: str = "val/reward") -> None:
        """Let go of all checkpoints but the newest and the best: the one with the highest `best_checkpoint_metric`
        in the history (the lowest, where its name has `loss` in it)."""
        keep: set[int] = set()
        if self.folder is not None:
            scored = [
                (float(row[best_checkpoint_metric]), int(row["step"]))
                for row in history.read(self.folder.history)
                if best_checkpoint_metric in row
            ]
            if scored:
                choose = min if "loss" in best_checkpoint_metric else max
                keep.add(choose(scored, key=lambda one: (one[0],))[1])
        await self._backend.delete_checkpoints(self, frozenset(keep))

    @property
    def _backend(self) -> Backend:
        if self._registered is None:
            raise ConfigError(
                f"{self.project}/{self.name} is not registered",
                remedy="await model.register(backend) first",
            )
        return self._registered.backend

    def _here(self, what: str) -> ModelFolder:
        backend, folder = self._backend, self.folder
        if folder is None:
            raise EnvironmentFault(
                f"{what} keeps files on this machine, and {type(backend).__name__} keeps none here",
                remedy="take LocalBackend",
            )
        return folder


def _means(rows: Sequence[Trajectory]) -> dict[str, float]:
    """The mean reward, and the mean of each metric over the trajectories that have it."""
    if not rows:
        return {}
    found: dict[str, list[float]] = {"reward": [row.reward for row in rows]}
    for row in rows:
        for key, value in row.metrics.items():
            found.setdefault(key, []).append(float(value))
    return {key: sum(values) / len(values) for key, values in found.items()}


def _plain(row: Trajectory) -> dict[str, Any]:
    told = {
        "messages": row.messages(),
        "tools": row.tools,
        "reward": row.reward,
        "metrics": row.metrics,
        "metadata": row.metadata,
        "logs": row.logs,
    }
    return cast("dict[str, Any]", json.loads(json.dumps(told, default=str)))
