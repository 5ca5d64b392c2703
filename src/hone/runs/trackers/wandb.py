"""Weights & Biases, through the package `wandb`. Without a key the run is kept offline, ready to be sent later."""

from __future__ import annotations

import netrc
import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from hone.runs.folder import RunFolder
from hone.runs.trackers.tracker import Ending, Point, Sample, TrackedRun

_HOST = "https://api.wandb.ai"


class WandbTracker:
    """A run of `wandb.init`, which is told nothing but the run's numbers and settings: no code, no console, no machine."""

    def __init__(self, run: TrackedRun) -> None:
        self._library: Any = import_module("wandb")
        self.id = run.id or uuid4().hex
        offline = not has_key(os.environ)
        run.folder.mkdir(parents=True, exist_ok=True)
        settings = self._library.Settings(
            console="off",
            host="",
            disable_git=True,
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self._run: Any = self._library.init(
            project=run.project,
            entity=run.entity,
            name=run.name,
            tags=list(run.tags) or None,
            id=self.id,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.config),
            mode="offline" if offline else None,
            settings=settings,
        )
        # Every process that trains the run leaves a folder of its own; sent together they are one run.
        send = f"wandb sync {Path(str(self._run.dir)).parent.parent / 'offline-run-*'}"
        is_offline = bool(getattr(self._run, "offline", offline))
        self.place = send if is_offline else str(self._run.url)
        self._artifact = run.artifact
        self._name = run.name
        self.notices: tuple[str, ...] = ()
        if offline:
            message = "no WANDB_API_KEY is set, so the run is kept offline; send it later with"
            self.notices = (f"{message}: {send}",)

    def log(self, points: Sequence[Point]) -> None:
        """The numbers, each at its own step."""
        for point in points:
            self._run.log({**point.metrics, "_timestamp": point.time}, step=point.step)

    def log_samples(self, step: int, time: float, samples: Sequence[Sample]) -> None:
        """One table of all prompts."""
        del time
        table: Any = self._library.Table(columns=["row", "prompt", "reply", "wanted"])
        for one in samples:
            table.add_data(one.name, one.prompt, one.reply, one.wanted or "")
        self._run.log({"samples": table}, step=step)

    def close(self, ending: Ending) -> None:
        """Send what is waiting, and the artifact of a finished run where it is wanted."""
        if ending == "finished" and self._artifact is not None:
            name = re.sub(r"[^A-Za-z0-9_.-]", "-", self._name)
            artifact: Any = self._library.Artifact(f"{name}-model", type="model")
            for path in RunFolder(self._artifact).artifact_files():
                artifact.add_file(str(path), name=path.name)
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=1 if ending == "failed" else 0)


def has_key(environment: Mapping[str, str]) -> bool:
    """Whether wandb can reach an account: a key, a login that `wandb login` kept, or a mode of the user's own."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_MODE"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or _HOST).hostname or ""
    path = environment.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
