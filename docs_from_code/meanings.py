"""What each event means, in a sentence: the one thing about events that the code does not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

GROUPS: Final[Mapping[str, Mapping[str, str]]] = {
    "A run": {
        "phase": "What the run is doing from now on.",
        "started": "The run's folder is made or opened, and nobody else has it.",
        "notice": "Something that a user should know; `code` names which. Nothing that changes a run is done without one.",
        "data": "What became of the rows of a file: kept, dropped by reason, cut.",
        "plan": "What the run will take, before anything is loaded.",
        "engine": "What of this machine is used in a step, and what is not and why. Only on a GPU.",
        "ranks": "Several processes share each step.",
        "measured": "The rate of matrix products on this machine, against which utilisation is told.",
        "rehearsed": "The token budget of a Pack, found by trying the largest one before step 1.",
        "forecast": "How long the run will take, after the rehearsal.",
        "resumed": "The run goes on from a checkpoint.",
        "step": "One optimizer step is done. `tokens` are those of its rows, `computed_tokens` what was left of them after "
        "prefix sharing, `trained_tokens` what was learned from.",
        "compiled": "A part of the model was compiled in the middle of the run: another shape came.",
        "evaluated": "The loss on held-out rows.",
        "sample": "What the model writes at this step.",
        "saved": "A checkpoint is complete and verified.",
        "halved": "Memory ran out: from this step on Packs are smaller. The same rows are computed.",
        "tracking": "A tracker has opened the run; where it can be seen.",
        "stopped": "The run was asked to stop, and saved.",
        "failed": "The run ended by an error.",
        "finished": "The run is done, and its model or adapter is written.",
    },
    "`hone distill`": {
        "teacher": "Who is asked, how often, and what is missing.",
        "answer": "An answer stands on the disk; `outcome` says whether it can be used.",
        "retry": "A request failed for a cause that passes, and is sent again.",
        "failure": "A request failed for good.",
        "distilled": "All is asked; what it came to.",
    },
    "`hone evaluate`, `hone infer`": {
        "answered": "How many of the questions are answered so far.",
        "inferred": "The file of prompts is answered; where the answers are.",
    },
    "A model trained call by call": {
        "prepared": "The trajectories of a call are tokens.",
        "call": "A call begins: its steps, and where it goes on.",
        "checkpoint": "The call's adapter is kept under a training step.",
    },
    "Verdicts of single commands (`--json`)": {
        "row": "`hone quickstart`: an example.",
        "score": "`hone quickstart`: how many held-out rows were right.",
        "stage": "`hone quickstart`: a part begins.",
        "result": "What a command came to, as its last line.",
    },
}
"""Each event under who says it, in the order in which a reader meets them."""
