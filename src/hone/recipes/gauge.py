"""What a run's utilisation rests on: the model's FLOPs, and this machine's rate of products, measured once in a run."""

from __future__ import annotations

from hone.engine.flops import Gauge, model_flops, product_flops
from hone.engine.loss import PackLoss
from hone.engine.plan import Plan
from hone.runs.events import Say
from hone.runs.folder import RunFolder


def read_gauge(loss: PackLoss, plan: Plan, folder: RunFolder, say: Say) -> Gauge | None:
    """From the run's identity, or measured now and kept there, so that all figures of a run compare.

    None where no product can be timed, for lack of memory: steps tell no utilisation then.
    """
    products = (folder.read_identity() or {}).get("product_flops_per_second")
    flops = model_flops(loss)
    if products is None:
        products = product_flops(loss, max(budget for _, budget in plan.budgets))
        folder.update_identity(product_flops_per_second=products)
        if products:
            say("measured", product_flops_per_second=products, model_flops_per_token=flops.token)
        else:
            message = (
                "no matrix product could be timed, for lack of memory: utilisation is not told"
            )
            say("notice", code="no-utilisation", message=message)
    return Gauge(flops, float(products)) if products else None
