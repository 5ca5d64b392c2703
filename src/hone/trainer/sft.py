"""`SFTTrainer`: a flat configuration and callbacks in, a tuned model and its numbers out.

    result = SFTTrainer(SFTConfig.from_yaml("config.yaml")).train()

It trains nothing itself: the configuration is fitted (`fit.py`) and goes the one road of `hone.recipes.train`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hone.config.dialects.flat import SFTConfig, in_flat_words
from hone.config.layers import Resolved
from hone.errors import ChangedSettings, ConfigError, EnvironmentFault, HoneError
from hone.trainer.callbacks import SFTCallback
from hone.trainer.fit import fit, with_own
from hone.trainer.lines import Lines
from hone.trainer.result import SFTResult, read_result

if TYPE_CHECKING:
    from hone.engine.callbacks import Callback, Training


class SFTTrainer:
    """Trains as `config` says, in this process; `callbacks` are called while it does.

    What it tells meanwhile goes to standard error; `quiet` silences it. Everything is in the events of the run's
    folder either way.
    """

    def __init__(
        self,
        config: SFTConfig,
        callbacks: Sequence[SFTCallback | Callback] | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        if not isinstance(config, SFTConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"SFTTrainer takes an SFTConfig, not {type(config).__name__}",
                remedy="make one by SFTConfig(...), SFTConfig.from_dict(...) or SFTConfig.from_yaml(...)",
            )
        self.config = config
        self.callbacks = list(callbacks or ())
        self.run: Training | None = None
        """The run as the engine sees it, while and after it trains."""
        self._quiet = quiet
        self._resolved: Resolved | None = None
        others = [one for one in self.callbacks if not isinstance(one, SFTCallback)]
        if others:
            from hone.engine.callbacks import check_callbacks

            check_callbacks(others)

    def train(self, *, fresh: bool = False, accept_changes: bool = False) -> SFTResult:
        """Train, or go on with what was begun in `output_dir`; one that is finished is not trained again.

        `fresh` starts over (what was there steps aside), `accept_changes` goes on with other settings than it was
        begun with. Raises ConfigError, DataError, ModelError and EnvironmentFault before anything is written where
        the input is at fault; later what training raises.
        """
        if threading.current_thread() is not threading.main_thread():
            raise EnvironmentFault(
                "train() was called outside the main thread, where no signal arrives that would stop it",
                remedy="call it in the main thread, or in a process of its own",
            )
        try:
            return self._train(fresh=fresh, accept_changes=accept_changes)
        except ChangedSettings as error:
            error.remedy = (
                "to go on with the new settings: train(accept_changes=True); to start over: train(fresh=True); to keep "
                "both: another output_dir"
            )
            raise in_flat_words(error) from None
        except HoneError as error:
            raise in_flat_words(error) from error.__cause__

    def _train(self, *, fresh: bool, accept_changes: bool) -> SFTResult:
        callbacks = with_own(self.config, self.callbacks)
        self._resolved = fit(self.config, callbacks)
        lines = Lines(self.config.logging_steps)
        if not self._quiet:
            lines.write(self._opening())
        from hone.backends.training import train
        from hone.trainer.bridge import bridges

        alone = self.config.num_devices == 1
        trained = train(
            self._resolved,
            fresh=fresh,
            accept_changes=accept_changes,
            listeners=[] if self._quiet else [lines],
            callbacks=bridges(self, callbacks) if alone else [],
        )
        merged = self._merge(trained.folder, lines)
        return read_result(trained.folder, seconds=trained.seconds, merged=merged)

    def _opening(self) -> str:
        config, tuning = self.config, self._settings.config.tuning
        rank = f", r={tuning.lora.r}" if tuning.is_adapter else ""
        return (
            f"{config.base_model} ({tuning.method}{rank}) on {config.dataset_name} ({config.dataset_format}); a step "
            f"has {config.get_effective_batch_size()} rows: batch_size {config.batch_size} x "
            f"gradient_accumulation_steps {config.gradient_accumulation_steps} x num_devices {config.num_devices}"
        )

    def _merge(self, folder: Path, lines: Lines) -> Path | None:
        """`merged` in the run's folder, where it is wanted; not again where it is newer than the adapter."""
        if not (self.config.save_merged_model and self.config.use_lora):
            return None
        merged, adapter = folder / "merged", folder / "adapter_model.safetensors"
        done = merged / "config.json"
        if not done.is_file() or done.stat().st_mtime_ns < adapter.stat().st_mtime_ns:
            from hone.recipes.merge import merge

            merge(str(folder), merged, replace=True)
        if not self._quiet:
            lines.write(f"merged model: {merged}")
        return merged

    # What a callback may ask of it.

    @property
    def folder(self) -> Path:
        """The folder of the run, absolute."""
        return Path(self.config.output_dir).resolve()

    @property
    def model(self) -> Any:
        """The model (a PeftModel where an adapter trains) with its present weights: to look at and to save."""
        return self._training.model

    @property
    def step(self) -> int:
        """Finished steps."""
        return self._training.step

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self._training.steps

    @property
    def metrics(self) -> dict[str, float]:
        """The newest of each metric."""
        return self._training.metrics

    def evaluate(self) -> float | None:
        """The loss on the held-out rows now, measured once a step; None without held-out rows."""
        return self._training.evaluate()

    def stop(self, reason: str = "a callback asked for it") -> None:
        """End training after this step: saved, with its adapter, as after the last one."""
        self._training.stop(reason)

    def save(self) -> None:
        """Write a checkpoint of the run after this step."""
        self._training.save()

    def save_model(self, folder: str | Path) -> None:
        """Write the adapter (or model) as it is now to `folder`, for plain peft and transformers to load."""
        from hone.recipes.snapshot import write_snapshot

        named = self._settings.config.model.name
        about = f"# {Path(named).name}, tuned with Hone, as it was after step {self.step:,} of {self.steps:,}\n"
        write_snapshot(Path(folder), self.model, self._settings.config, about=about)

    @property
    def _training(self) -> Training:
        if self.run is None:
            raise ConfigError(
                "this trainer has not begun to train",
                remedy="ask for it in a callback, or after train()",
            )
        return self.run

    @property
    def _settings(self) -> Resolved:
        return cast(Resolved, self._resolved)
