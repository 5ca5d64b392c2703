"""Who is evaluated: the model that was named, and its base beside it, opened one after the other. It asks nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hone.errors import ConfigError
from hone.infer.local import LocalCompleter
from hone.infer.open import load_base, open_place
from hone.infer.place import Place, find_place
from hone.models.source import find_model

TUNED: Final = "tuned"
BASE: Final = "base"
_TAKEN_FROM_BASE: Final = ("pissa", "olora", "orthogonal", "loftq")


@dataclass(frozen=True)
class Player:
    """A model that is ready. `folder` holds the files of its base model, `label` is what a reader knows it by."""

    name: str
    label: str
    completer: LocalCompleter
    folder: Path
    is_alike: bool = True
    """Whether it reads the very tokens that the tuned one reads."""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sides:
    """The tuned model's place, and where its base is: None for no base; the same weights without their adapter where
    `is_within`."""

    tuned: Place
    base: Place | None
    is_within: bool = False


def find_sides(name: str, *, base: str | None, alone: bool, revision: str | None) -> Sides:
    """What `name` stands for, and what to put beside it: `base` where one is named, else what it was tuned from.

    `alone`: nothing. Raises ModelError, EnvironmentFault, and ConfigError for both at once.
    """
    if alone and base is not None:
        raise ConfigError("--base and --no-base contradict each other", remedy="leave one out")
    place = find_place(name, revision=revision)
    if alone:
        return Sides(place, None)
    if base is not None:
        return Sides(place, find_place(base))
    if place.kind == "model":
        if place.config is None:
            return Sides(place, None)
        return Sides(place, _plain(find_model(place.config.model)))
    config = place.config
    if config is not None and place.kind == "checkpoint":
        lora = config.tuning
        if not lora.is_adapter or lora.lora.init in _TAKEN_FROM_BASE:
            return Sides(place, _plain(place.base))
    return Sides(place, _plain(place.base), is_within=True)


def players(sides: Sides) -> Iterator[Player]:
    """The tuned model, then its base. Each is let go before the next is loaded, where they share no weights."""
    opened = open_place(sides.tuned)
    tuned = opened.completer
    label = str(sides.tuned.folder)
    yield Player(TUNED, label, tuned, sides.tuned.base, True, opened.notices)
    if sides.base is None:
        return
    within = tuned.without_adapter() if sides.is_within else None
    if within is not None:
        yield Player(BASE, str(sides.base.folder), within, sides.tuned.base)
        return
    renderer, stops, limit = tuned.renderer, tuned.stop_ids, tuned.limit
    del opened, tuned, within
    gc.collect()
    if sides.base.kind == "model" and _is_own_base(sides):
        # The same prompts for both: what differs is what training made of the weights.
        made = LocalCompleter(load_base(sides.base.folder), renderer, stop_ids=stops, limit=limit)
        yield Player(BASE, str(sides.base.folder), made, sides.base.folder)
        return
    other = open_place(sides.base)
    theirs = other.completer.renderer
    alike = (
        theirs.tokenizer.fingerprint == renderer.tokenizer.fingerprint
        and theirs.template.fingerprint == renderer.template.fingerprint
    )
    yield Player(
        BASE, str(sides.base.folder), other.completer, sides.base.base, alike, other.notices
    )


def _is_own_base(sides: Sides) -> bool:
    """Whether the base is what the tuned model began from."""
    config = sides.tuned.config
    assert sides.base is not None
    if sides.tuned.kind != "model":
        return sides.base.folder.resolve() == sides.tuned.base.resolve()
    return config is not None and sides.base.folder.resolve() == find_model(config.model).resolve()


def _plain(folder: Path) -> Place:
    return Place("model", folder, base=folder)
