"""What a rehearsal finds out, kept with the run so that it goes on alike: budgets, speeds, the longest Pack's seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hone.config.sections import Config
from hone.data.dataset import Figures
from hone.engine.cost import Weight
from hone.engine.loss import PackLoss
from hone.engine.rehearsal import rehearse
from hone.models.recompute import recompute
from hone.recipes.together import Together
from hone.runs.events import Say

_KEPT: Final = ("budgets", "speeds", "pack_seconds", "recomputed")


def measure(
    identity: Mapping[str, Any],
    lower: tuple[int, int] | None,
    *,
    config: Config,
    loss: PackLoss,
    together: Together,
    layout: Callable[[int], Sequence[Weight]],
    figures: Callable[[], Figures],
    layers: int | None,
    steps: int,
    say: Say,
) -> dict[str, Any]:
    """As kept in `identity`, or by a rehearsal now. All ranks call this and come to one answer.

    `lower` is (from_step, micro_batch_tokens) of a start anew after memory ran out; `layout(budget)` the Packs of
    a few of the data's own steps; `layers` how many are computed again (None: as memory asks). Raises OutOfMemory where not even the longest row fits.
    """
    kept = {key: identity.get(key) for key in _KEPT}
    if kept["budgets"] is None:
        most = None if lower is None else lower[1]
        return _rehearse(config, loss, together, layout, figures(), layers, steps, most, say)
    recompute(loss.model, layers if layers is not None else kept["recomputed"] or 0)
    if lower is not None:
        kept["budgets"] = [*kept["budgets"], lower]
        say("halved", step=lower[0], micro_batch_tokens=lower[1])
    return kept


def _rehearse(
    config: Config,
    loss: PackLoss,
    together: Together,
    layout: Callable[[int], Sequence[Weight]],
    figures: Figures,
    layers: int | None,
    steps: int,
    most: int | None,
    say: Say,
) -> dict[str, Any]:
    say("phase", name="rehearsal")
    if figures.is_estimate:
        say(
            "notice",
            code="estimated",
            message=f"figures are estimated from {figures.ready:,} of {figures.rows:,} rows; "
            "the others are prepared while training runs",
        )
    budget = config.compute.micro_batch_tokens
    wanted = budget if isinstance(budget, int) else None
    found = rehearse(
        loss,
        longest=figures.longest,
        wanted=most if wanted is None else min(wanted, most or wanted),
        trained_share=figures.trained_tokens / max(1, figures.tokens),
        state_bytes=together.to_allocate(config.train.optimizer),
        layout=layout,
        strategy=together.strategy,
        layers=layers,
        measured=together.measured,
    )
    say(
        "rehearsed",
        **found.told(),
        trained_parameters=together.trained_parameters,
        steps=steps,
    )
    return {
        "budgets": [(1, found.micro_batch_tokens)],
        "speeds": found.speeds.to_json(),
        "pack_seconds": found.worst_seconds,
        "recomputed": found.recomputed,
    }
