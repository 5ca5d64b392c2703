"""The numbered checkpoints of a model that is trained call by call, and the optimizer states beside them."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.data.tokenizer import TextTokenizer
from hone.errors import DiskError, EnvironmentFault
from hone.recipes.artifact import artifact_tensors, write_artifact
from hone.recipes.build import Built
from hone.runs.checkpoint import MANIFEST, Checkpoint, CheckpointStore, read_checkpoint
from hone.runs.disk import Disk, sha256_of
from hone.runs.events import Say

_KEPT_STATES = 3  # the newest checkpoint's, and those of the two before: enough to take one back
_ABOUT = "hone.json"
_WEIGHTS = "adapter_model.safetensors"
_NAME = re.compile(r"\d{4,}")


@dataclass(frozen=True)
class Position:
    """Where a checkpoint stands."""

    gradient_steps: int
    """Of the model's life."""
    state_step: int
    """The number of its optimizer state; 0 where the optimizer is yet to begin."""


class TraineeCheckpoints:
    """`checkpoints/0001` and so on, each whole or not there."""

    def __init__(self, path: Path, states: Path, base_name: str) -> None:
        self._path = path
        self._states = CheckpointStore(states, keep=_KEPT_STATES)
        self._base_name = base_name
        self._disk = Disk()
        path.mkdir(parents=True, exist_ok=True)
        for left in path.glob(".writing-*"):
            shutil.rmtree(left, ignore_errors=True)

    def folder(self, step: int) -> Path:
        """The folder of a step."""
        return self._path / f"{step:04d}"

    def newest(self) -> int | None:
        """The highest step; None where there is none."""
        return max(
            (int(p.name) for p in self._path.iterdir() if _NAME.fullmatch(p.name)), default=None
        )

    def made_by(self, call: str) -> int | None:
        """The step of the checkpoint that a call of this name made; None where it made none."""
        for folder in sorted(self._path.iterdir(), reverse=True):
            if _NAME.fullmatch(folder.name) and _about(folder).get("call") == call:
                return int(folder.name)
        return None

    def position(self, step: int) -> Position:
        """Where a checkpoint stands. One that another program wrote, or whose weights were changed, has no state."""
        folder = self.folder(step)
        try:
            told = _about(folder)
            is_ours = told["weights_sha256"] == sha256_of(folder / _WEIGHTS)
            return Position(int(told["gradient_steps"]), int(told["state_step"]) if is_ours else -1)
        except (OSError, ValueError, KeyError, TypeError):
            return Position(0, -1)

    def state(self, position: Position, say: Say) -> Checkpoint | None:
        """The optimizer state of a position, verified; None where it is gone or damaged."""
        path = self._states.folder / f"step-{max(0, position.state_step):08d}"
        if not path.is_dir():
            return None
        try:
            return read_checkpoint(path)
        except EnvironmentFault as error:
            say("notice", code="checkpoint-skipped", message=error.what)
            return None

    def settle(self, state: Checkpoint) -> None:
        """Keep the state that a call ended with. Raises DiskError."""

        def copy(folder: Path) -> None:
            for path in state.path.iterdir():
                if path.name != MANIFEST:
                    shutil.copyfile(path, folder / path.name)

        size = sum(path.stat().st_size for path in state.path.iterdir())
        self._states.save(state.step, copy, needed_bytes=size)

    def forget_states(self) -> None:
        """Let go of all states: they belong to other weights."""
        shutil.rmtree(self._states.folder, ignore_errors=True)
        self._states = CheckpointStore(self._states.folder, keep=_KEPT_STATES)

    def write(
        self,
        step: int,
        position: Position,
        *,
        base: Path,
        built: Built,
        tokenizer: TextTokenizer,
        template: str,
        call: str = "",
    ) -> Path:
        """Write the adapter as it is now; the folder gets its name last. `call` is the name of the call that made it.

        Raises DiskError.
        """
        final = self.folder(step)
        beside = self._path / f".writing-{final.name}"
        try:
            self._disk.remove(beside)
            self._disk.make_folder(beside)
            write_artifact(
                beside,
                base=base,
                base_name=self._base_name,
                model=built.model,
                tuned=built.tuned,
                weights=artifact_tensors(built.model, built.tuned),
                tokenizer=tokenizer,
                template=template,
                stop_ids=(),
                card=_card(self._base_name, step, position),
            )
            about = {
                "training_step": step,
                "gradient_steps": position.gradient_steps,
                "state_step": position.state_step,
                "weights_sha256": sha256_of(beside / _WEIGHTS),
                **({"call": call} if call else {}),
            }
            self._disk.replace_file(beside / _ABOUT, (json.dumps(about, indent=1) + "\n").encode())
            self._disk.fsync_folder(beside)
            os.rename(beside, final)
            self._disk.fsync_folder(self._path)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise DiskError(
                f"the checkpoint was not saved: {error.strerror or error}",
                where=str(final),
                remedy="free some space; the same call goes on where it stopped",
            ) from error
        return final


def _about(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; nothing where it cannot be read."""
    try:
        told: dict[str, Any] = json.loads((folder / _ABOUT).read_bytes())
    except (OSError, ValueError):
        return {}
    return told


def _card(base_name: str, step: int, position: Position) -> str:
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(base_name)}",
            "library_name: peft",
            "tags: [hone, sft]",
            "---",
            "",
            f"A LoRA adapter after {step:,} training steps (calls of train_sft) and "
            f"{position.gradient_steps:,} gradient steps.",
            "",
        ]
    )
