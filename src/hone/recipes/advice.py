"""What to change where a run would not fit, as settings ready to paste, each with the memory that it would save. No torch.

A change is proposed only if it is tried on the plan itself and helps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from hone.config.fields import settings
from hone.config.sections import Config
from hone.engine.cost import BUDGETS
from hone.errors import ConfigError
from hone.recipes.holding import has_deepspeed, refuse_settings_in_parts
from hone.recipes.identity import flat
from hone.recipes.memory_plan import Load, MemoryPlan, plan_memory
from hone.recipes.plan import RunPlan
from hone.recipes.subject import recomputed_layers, subject
from hone.recipes.target import asked, settled

_WORTH: Final = 0.02  # of the peak: a change that saves less is not worth a line
_STAGES: Final = ("zero1", "zero2", "zero3")


@dataclass(frozen=True)
class Change:
    """A change, in words that can be pasted behind the command."""

    words: str
    saves_bytes: int
    peak_bytes: int
    fits: bool
    costs: str
    """What it costs in turn, in words."""

    def to_json(self) -> dict[str, Any]:
        """For a script."""
        return {
            "change": self.words,
            "saves_bytes": self.saves_bytes,
            "peak_bytes": self.peak_bytes,
            "fits": self.fits,
            "costs": self.costs,
        }


@dataclass(frozen=True)
class _Try:
    """One thing to try."""

    settings: dict[str, Any]
    costs: str
    longest: int | None = None

    @property
    def words(self) -> str:
        """As it is typed."""
        return " ".join(f"{name}={_typed(value)}" for name, value in self.settings.items())


def advise(plan: RunPlan) -> list[Change]:
    """What would make the run fit, the mildest first; together with the others where none is enough alone.

    Empty where it fits already.
    """
    if plan.memory.fits:
        return []
    found: list[Change] = []
    helpful: list[_Try] = []
    for kind in _tries(plan):
        one, change = _mildest(plan, kind)
        if change is not None and change.saves_bytes >= _WORTH * plan.memory.peak_bytes:
            found.append(change)
            helpful.append(one)
    if found and not any(change.fits for change in found):
        together = _together(plan, helpful)
        found += [together] if together is not None else []
    return found


def changed(config: Config, values: dict[str, Any]) -> Config:
    """`config` with other values at dotted names. Raises ConfigError where they are not allowed together."""
    tree = config.model_dump()
    for name, value in values.items():
        *parents, key = name.split(".")
        place = tree
        for parent in parents:
            place = place[parent]
        place[key] = value
    try:
        return Config.model_validate(tree)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _mildest(plan: RunPlan, kind: list[_Try]) -> tuple[_Try, Change | None]:
    """Of one change in several strengths, the first that makes it fit, else the strongest."""
    for one in kind:
        change = _tried(plan, one)
        if change is not None and change.fits:
            return one, change
    return kind[-1], _tried(plan, kind[-1])


def _tries(plan: RunPlan) -> Iterable[list[_Try]]:
    """Each change, in the order of what they cost: time, then what is learned, then rows."""
    config, target = plan.config, plan.target
    smaller = [b for b in reversed(BUDGETS) if plan.figures.longest <= b < plan.load.rehearsed]
    if smaller and plan.alone_because is None:
        yield [_Try({"compute.micro_batch_tokens": b}, "more passes a step") for b in smaller]
    if recomputed_layers(config, plan.shape) == 0:
        yield [_Try({"compute.gradient_checkpointing": True}, "about a third more time")]
    if plan.precision == "fp32" and (target.card is None or target.card.bf16 is not None):
        yield [_Try({"train.precision": "bf16"}, "the step is rounded to bf16")]
    told = "weights and gradients travel between ranks"
    shared = [_Try(values, told) for values in _shared_more(plan)]
    if shared:
        yield shared
    yield from _other_methods(plan)
    mean = plan.figures.tokens / max(1, plan.figures.rows)
    shorter = [limit for limit in reversed(BUDGETS) if mean <= limit < plan.figures.longest]
    if shorter:
        yield [
            _Try(
                {"data.max_length": limit, "data.too_long": "drop"},
                "longer rows are left out",
                longest=limit,
            )
            for limit in shorter
        ]


def _shared_more(plan: RunPlan) -> list[dict[str, Any]]:
    """Settings under which each rank holds less of the model, the mildest first."""
    compute, target = plan.config.compute, plan.target
    if target.count == 1 or target.sharding == "fsdp":
        return []
    stages = (
        _STAGES if compute.deepspeed else _STAGES[:2]
    )  # without DeepSpeed's file, fsdp is the third
    if target.sharding in stages:
        stages = stages[stages.index(target.sharding) + 1 :]
    if target.is_here and not has_deepspeed():
        stages = ()
    apart: dict[str, Any] = {} if compute.strategy == "auto" else {"compute.strategy": "auto"}
    found: list[dict[str, Any]] = [{**apart, "compute.deepspeed": name} for name in stages]
    return found if compute.deepspeed else [*found, {"compute.strategy": "fsdp"}]


def _other_methods(plan: RunPlan) -> Iterable[list[_Try]]:
    """Optimizers and methods that hold less, as far as this version has them."""
    optimizers = _choices("train.optimizer")
    now = str(flat(plan.config.model_dump(mode="json")).get("train.optimizer", "adamw"))
    for name in ("adamw_8bit", "adafactor"):
        if name in optimizers and now == "adamw":
            yield [_Try({"train.optimizer": name}, "moments are kept in fewer bits")]
    methods = _choices("tuning.method")
    here = plan.config.tuning.method
    if here == "full":
        yield [_Try({"tuning.method": "lora"}, "adapters are trained, not every weight")]
    if here != "qlora" and "qlora" in methods:
        yield [_Try({"tuning.method": "qlora"}, "adapters beside a base in 4 bits")]


def _choices(name: str) -> tuple[str, ...]:
    setting = settings().get(name)
    return () if setting is None else setting.choices


def _tried(plan: RunPlan, one: _Try) -> Change | None:
    memory = _memory(plan, one)
    if memory is None:
        return None
    saved = plan.memory.peak_bytes - memory.peak_bytes
    return Change(one.words, saved, memory.peak_bytes, memory.fits, one.costs)


def _together(plan: RunPlan, helpful: list[_Try]) -> Change | None:
    """The mildest changes one after the other, until it fits; None where it never does."""
    merged = _Try({}, "all of that")
    for one in helpful:
        merged = _Try(
            {**merged.settings, **one.settings},
            "all of that",
            one.longest or merged.longest,
        )
        change = _tried(plan, merged)
        if change is not None and change.fits:
            return change
    return None


def _memory(plan: RunPlan, one: _Try) -> MemoryPlan | None:
    """The plan's memory with a change; None where the settings do not go together."""
    try:
        config = changed(plan.config, one.settings)
    except ConfigError:
        return None
    precision = "bf16" if config.train.precision == "bf16" else plan.precision
    who = subject(config, plan.shape, precision, adapter=plan.adapter, on_card=plan.subject.on_card)
    budget = config.compute.micro_batch_tokens
    longest = min(plan.figures.longest, one.longest or plan.figures.longest)
    tokens = plan.load.rehearsed
    if isinstance(budget, int) and plan.alone_because is None:
        tokens = max(budget, longest)
    elif one.longest is not None:
        tokens = max(longest, plan.budget if plan.alone_because is None else longest)
    load = _smaller(plan, tokens)
    target = settled(asked(plan.target, config), who, base_bytes=load.base_bytes)
    try:
        refuse_settings_in_parts(config, target.sharding)
    except ConfigError:
        return None
    return plan_memory(who, load, target, recomputed=recomputed_layers(config, plan.shape))


def _smaller(plan: RunPlan, tokens: int) -> Load:
    """The plan's Packs, with so many tokens in the largest; then a step has several."""
    predictions = min(plan.load.predictions, tokens)
    accumulates = plan.load.accumulates or tokens < plan.load.rehearsed
    return replace(
        plan.load,
        rehearsed=tokens,
        predictions=predictions,
        longest=min(tokens, plan.load.longest),
        accumulates=accumulates,
    )


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
