"""What a run's utilisation rests on: the model's FLOPs, and this machine's rate of products, measured once in a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hone.engine.flops import Gauge, ModelFlops, model_flops, product_flops, product_shapes
from hone.engine.loss import PackLoss
from hone.engine.plan import Plan
from hone.runs.events import Say
from hone.runs.folder import RunFolder


@dataclass(frozen=True)
class Measures:
    """What is read off a model's weights while they are whole."""

    loss: PackLoss
    flops: ModelFlops
    products: Counter[tuple[int, int]]
    """How often each (inputs, outputs) is multiplied in a pass."""

    @classmethod
    def of(cls, loss: PackLoss) -> Measures:
        """Before ranks hold its weights in parts."""
        return cls(loss, model_flops(loss), product_shapes(loss.model))


def read_gauge(
    measures: Measures, plan: Plan, folder: RunFolder, say: Say, *, ranks: int = 1
) -> Gauge | None:
    """From the run's identity, or measured now and kept there, so that all figures of a run compare.

    So many `ranks` can do as many times what this one can alone. None where no product can be timed, for lack of
    memory: steps tell no utilisation then.
    """
    products = (folder.read_identity() or {}).get("product_flops_per_second")
    flops = measures.flops
    if products is None:
        tokens = max(budget for _, budget in plan.budgets)
        products = product_flops(measures.loss, tokens, measures.products)
        folder.update_identity(product_flops_per_second=products)
        if products:
            say("measured", product_flops_per_second=products, model_flops_per_token=flops.token)
        else:
            message = (
                "no matrix product could be timed, for lack of memory: utilisation is not told"
            )
            say("notice", code="no-utilisation", message=message)
    return Gauge(flops, float(products) * ranks) if products else None
