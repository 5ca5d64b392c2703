"""How a run begins: its rows are read and its folder is opened, by the rank whose part it is."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from datetime import datetime
from pathlib import Path

from hone.config.sections import Config
from hone.engine.ranks import Ranks
from hone.errors import ConfigError, EnvironmentFault, LockedError
from hone.recipes.herald import Herald
from hone.recipes.source import Source, read_source
from hone.runs.folder import RunFolder


def read_together(config: Config, herald: Herald, ranks: Ranks) -> Source:
    """What the run starts from. One rank of a machine prepares rows, the others take them from the cache."""
    ranks.work("reading the rows")
    if ranks.local_rank == 0:
        source = read_source(config, herald.say)
        ranks.wait("the rows")
        return source
    ranks.wait("the rows")
    return read_source(config, herald.say, follow=True)


def refuse_live(path: Path) -> None:
    """Raise LockedError where a live run uses the folder."""
    owner = RunFolder(path).owner() if path.is_dir() else None
    if owner is not None:
        raise LockedError(
            f"a live run uses this folder ({owner})",
            where=str(path),
            remedy="wait for it, stop it, or choose another --output",
        )


def refuse_endless_warmup(warmup_steps: int | None, steps: int) -> None:
    """Raise ConfigError where a run has fewer steps than its warmup."""
    if warmup_steps is not None and warmup_steps > steps:
        raise ConfigError(
            f"train.warmup_steps is {warmup_steps:,}, and the run has {steps:,} steps",
            remedy=f"set it to at most {steps:,}, or give train.warmup_ratio instead",
        )


@contextlib.contextmanager
def opened(path: Path, *, fresh: bool, herald: Herald, ranks: Ranks) -> Generator[RunFolder]:
    """The run folder, locked, its log open. With `fresh`, what was there steps aside.

    Ranks beside the first one write nothing there, or only what the first one tells them to.
    """
    if not ranks.is_first:
        ranks.wait("the run folder")
        folder = RunFolder(path)
        _refuse_unshared(folder)
        yield folder
        return
    if fresh and path.is_dir() and RunFolder(path).is_run:
        aside = path.with_name(f"{path.name}.before-{datetime.now():%Y%m%d-%H%M%S}")
        path.rename(aside)
        herald.say("notice", code="moved", message=f"the run that was in {path} is now in {aside}")
    folder = RunFolder.create(path)
    with folder.lock(), folder.events() as log:
        herald.attach(log)
        ranks.wait("the run folder")
        yield folder


def _refuse_unshared(folder: RunFolder) -> None:
    if not folder.is_run:
        raise EnvironmentFault(
            "the first rank's run folder is not to be seen from here",
            where=str(folder.path),
            remedy="set output.dir to a folder that all machines share",
        )
