"""What an `SFTTrainer` came to: a dict of loss, metrics and folder, whose keys are attributes too. It trains nothing."""

from __future__ import annotations

from math import fsum
from pathlib import Path
from typing import Any

from hone.runs.events import read_events, steps
from hone.runs.folder import RunFolder


class SFTResult(dict[str, Any]):
    """`result["train_loss"]`, `result["metrics"]`, `result["output_dir"]`, or `result.train_loss` and so on."""

    @property
    def train_loss(self) -> float:
        """Mean loss over all steps."""
        return float(self["train_loss"])

    @property
    def loss(self) -> float:
        """Loss of the last step."""
        return float(self.metrics["loss"])

    @property
    def metrics(self) -> dict[str, float]:
        """The run's numbers: `train_loss`, `loss`, `steps`, `epoch`, `seconds`, and with held-out rows `val_loss`
        (the last one) and `best_val_loss`."""
        return self["metrics"]

    @property
    def output_dir(self) -> str:
        """The folder of the adapter or model, and of the run."""
        return str(self["output_dir"])

    @property
    def merged_dir(self) -> str | None:
        """The folder of the merged model, where one was written."""
        return self.get("merged_dir")


def read_result(folder: Path, *, seconds: float, merged: Path | None) -> SFTResult:
    """From the events of a finished run."""
    events = RunFolder(folder).events_file
    taken = list(steps(events).values())
    losses = [float(event["loss"]) for event in taken]
    metrics: dict[str, float] = {
        "train_loss": fsum(losses) / max(1, len(losses)),
        "loss": losses[-1],
        "steps": float(len(taken)),
        "epoch": float(taken[-1]["epoch"]),
        "seconds": seconds,
    }
    told = [event["loss"] for event in read_events(events) if event.name == "evaluated"]
    held_out = [float(loss) for loss in told if loss is not None]
    if held_out:
        metrics |= {"val_loss": held_out[-1], "best_val_loss": min(held_out)}
    result = SFTResult(train_loss=metrics["train_loss"], metrics=metrics, output_dir=str(folder))
    if merged is not None:
        result["merged_dir"] = str(merged)
    return result
