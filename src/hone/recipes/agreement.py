"""What must come out alike on every rank, and at every start of a run: else it would go on with another model.

It knows no rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.config.sections import Config
from hone.engine.ranks import Ranks
from hone.errors import EnvironmentFault
from hone.models.adapters import digest
from hone.recipes.build import Built
from hone.runs.folder import RunFolder


def same_sharing(built: Built, ranks: Ranks) -> None:
    """Raise EnvironmentFault where the probe has not the same answer on every machine."""
    reasons = ranks.gather(built.alone_because)
    if len({reason is None for reason in reasons}) > 1:
        raise EnvironmentFault(
            f"ranks differ in whether rows can share Packs: {reasons}",
            remedy="use equal machines with equal versions, or set compute.pack=false",
        )


def same_beginning(
    built: Built, identity: Mapping[str, Any], config: Config, folder: RunFolder, ranks: Ranks
) -> None:
    """Where an initialisation took its part out of the base, a resume must take the very same part, and so must
    every rank; the first one keeps its digest with the run. Raises EnvironmentFault."""
    if not built.tuned.beginning:
        return
    now = digest(built.tuned.beginning)
    before = identity.get("beginning")
    if before is None:
        before = ranks.tell(now)
        if ranks.is_first:
            folder.update_identity(beginning=now)
    if before != now:
        raise EnvironmentFault(
            f"tuning.lora.init={config.tuning.lora.init} does not come out as it did when this run began: "
            "its checkpoints stand on another base",
            where=str(folder.path),
            remedy="resume with the versions and on the machine that it began with, or start over with --fresh",
        )
