"""What the loop is to do: numbers only. It knows no tensors and no configuration file."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from hone.engine.cost import Speeds
from hone.engine.moments import OptimizerName
from hone.engine.schedule import DecayShape, Rates, Schedule, ScheduleName, share_of_steps


@dataclass(frozen=True)
class Plan:
    """One run of the loop, resolved: nothing is `auto` any more.

    `budgets` says from which step (counted from 1) Packs hold how many tokens at most; each halving adds an
    entry. A resumed run gets the list as it was stored, so that every step is laid out as it was.
    """

    steps: int
    """Optimizer steps in all."""
    learning_rate: float
    """Peak of the schedule."""
    budgets: tuple[tuple[int, int], ...]
    """(from_step, micro_batch_tokens)."""
    schedule: ScheduleName = "cosine"
    """Course after the warmup."""
    warmup_ratio: float = 0.0
    """Share of the steps in which the rate rises."""
    warmup_steps: int | None = None
    """Steps in which the rate rises, instead of a share."""
    min_learning_rate_ratio: float = 0.0
    """Floor of a decay, as a share of the peak."""
    decay_ratio: float = 0.2
    """Share of the steps in which `wsd` decays, at the end."""
    decay_shape: DecayShape = "sqrt"
    """Shape of that decay."""
    optimizer: OptimizerName = "adamw"
    """How gradients move weights."""
    weight_decay: float = 0.0
    """Decoupled decay; biases and 1-D parameters are exempt."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the moments, AdamW's and Lion's."""
    lora_plus_ratio: float = 1.0
    """How many times the learning rate adapters' B matrices move at (LoRA+)."""
    max_grad_norm: float = 1.0
    """Global norm above which gradients are scaled down; 0: never."""
    seed: int = 0
    """Names the noise of each step."""
    steps_per_epoch: int = 1
    """Steps in one pass over the rows."""
    save_steps: int = 1
    """Steps between checkpoints; one more is saved at the end, and at each better evaluation."""
    eval_steps: int | None = None
    """Steps between evaluations, and one at the end. Used where held-out rows are given; None: never."""
    early_stop: int | None = None
    """Evaluations without a better loss after which the run ends; None: never."""
    speeds: Speeds = field(default_factory=lambda: Speeds({1: 1.0}))
    """By which the Packs of a step are dealt to ranks; stored with the run, so that a resumed one deals alike."""

    rates: Rates | None = None
    """A rate for each step instead of a schedule."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.save_steps < 1 or self.steps_per_epoch < 1:
            raise ValueError("steps, save_steps and steps_per_epoch: at least 1")
        if self.eval_steps is not None and self.eval_steps < 1:
            raise ValueError("eval_steps: at least 1, or None")

    @cached_property
    def course(self) -> Schedule | Rates:
        """The learning rate of each step."""
        if self.rates is not None:
            return self.rates
        warmup = self.warmup_steps
        return Schedule(
            peak=self.learning_rate,
            steps=self.steps,
            name=self.schedule,
            warmup=share_of_steps(self.steps, self.warmup_ratio) if warmup is None else warmup,
            floor=self.min_learning_rate_ratio,
            decay=share_of_steps(self.steps, self.decay_ratio),
            shape=self.decay_shape,
        )

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` finished steps."""
        return step == self.steps or step % self.save_steps == 0

    def evaluates_at(self, step: int) -> bool:
        """Whether an evaluation is due after `step` finished steps."""
        if self.eval_steps is None or step == 0:
            return False
        return step == self.steps or step % self.eval_steps == 0
