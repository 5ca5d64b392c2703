"""What is served by name: runs, checkpoints, adapters, models; opened when first asked for, bases shared.

Adapters of one base stand on one set of weights, and their replies are written in one batch. A run's or a growing
folder's checkpoints are looked for whenever a name is asked for, so that new ones need no restart. It knows no HTTP.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from peft import PeftModel
from transformers import PreTrainedModel

from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError, HoneError, nearest
from hone.infer.batch import Batch, Bounds, Closed, Row
from hone.infer.checkpoint_adapter import is_plain, write_adapter
from hone.infer.completer import Wanted
from hone.infer.decoder import BASE, decoder_of
from hone.infer.dialect import find_dialect
from hone.infer.grammar import Grammars
from hone.infer.open import Reading, load_base, open_place, reading_of
from hone.infer.place import Place
from hone.infer.reply_text import ReplyText
from hone.infer.served import Served, Stand
from hone.infer.writer import Tell, UnknownModel, Voice
from hone.models.new_tokens import row_count
from hone.models.saved_adapter import add_adapter, stands_beside_others

_MOST_ADAPTERS: Final = 32  # on one base, those that nobody asked for lately go first
_TRIES: Final = 3
_MOST_SPARES: Final = 1  # sets of weights of their own that are kept beside the newest


@dataclass(eq=False)
class _Weights:
    """One set of weights in memory, and the thread that writes with it."""

    batch: Batch
    used_s: float = 0.0
    adapters: dict[str, _Held] = field(default_factory=dict["str", "_Held"])
    """Those that stand on it, by the name that PEFT knows."""
    asked_s: dict[str, float] = field(default_factory=dict[str, float])
    """When each of them was asked for last."""
    gone: set[str] = field(default_factory=set[str])
    """Those that were taken off."""


@dataclass(eq=False)
class _Held:
    """A model that is ready: its voice, where its weights are, and as which adapter."""

    voice: Voice
    weights: _Weights
    adapter: str
    width: int
    stand: Stand
    writes: TextTokenizer
    """For replies: a tokenizer is not for several threads, and prompts are read in others."""
    grammars: Grammars | None = None


class Shelf:
    """A `Writer` over models of transformers in this process."""

    def __init__(self, served: Sequence[Served], bounds: Bounds | None = None) -> None:
        self._served = {one.name: one for one in served}
        self._bounds = bounds or Bounds()
        self._bases: dict[Path, _Weights] = {}
        self._own: dict[Path, _Weights] = {}
        self._held: dict[str, _Held] = {}  # by the full name, checkpoints with their step
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._closed = False

    def add(self, served: Served) -> None:
        """Serve one more name."""
        self._served = {**self._served, served.name: served}

    def names(self) -> list[str]:
        """As `Writer.names`."""
        return [name for one in self._served.values() for name in one.names()]

    def voice(self, name: str) -> Voice:
        """As `Writer.voice`."""
        return self._find(name).voice

    def write(self, voice: Voice, prompt: Sequence[int], wanted: Wanted, tell: Tell) -> Row:
        """As `Writer.write`."""
        for _ in range(_TRIES):
            held = self._find(voice.name)
            try:
                row = self._queue(held, voice, prompt, wanted, tell)
            except Closed:
                continue
            if held.adapter not in held.weights.gone:
                return row
            row.cancel()  # it was let go between the two: without it the base would answer
        raise HoneError(f"{voice.name} is let go as often as it is opened")

    def _queue(
        self, held: _Held, voice: Voice, prompt: Sequence[int], wanted: Wanted, tell: Tell
    ) -> Row:
        guide = None
        if wanted.schema is not None:
            guide = self._grammars(held).guide(wanted.schema)
        strangers = [i for i in wanted.logit_bias if i >= held.width]
        if strangers:
            raise ConfigError(f"logit_bias: the model has no token {strangers[0]}")
        return held.weights.batch.write(
            prompt,
            wanted,
            tell,
            text=ReplyText(held.writes, prompt, wanted.stop),
            stop_ids=frozenset(voice.stop_ids),
            width=held.width,
            adapter=held.adapter,
            guide=guide,
        )

    def close(self) -> None:
        """As `Writer.close`."""
        with self._lock:
            self._closed = True
            for weights in [*self._bases.values(), *self._own.values()]:
                weights.batch.close()
            self._bases.clear()
            self._own.clear()
            self._held.clear()

    def _grammars(self, held: _Held) -> Grammars:
        if held.grammars is None:
            voice = held.voice
            held.grammars = Grammars(held.writes, stop_ids=voice.stop_ids, width=held.width)
        return held.grammars

    def _find(self, name: str) -> _Held:
        served = self._served.get(name.partition("@")[0]) or self._served.get(name)
        if served is None:
            raise UnknownModel(
                f"no model {name!r} is served here", remedy=nearest(name, self.names())
            )
        stand = served.stand(name)
        held = self._held.get(name)
        if held is None or held.stand.stamp != stand.stamp:
            with self._lock:  # others go on while a model is read
                if self._closed:
                    raise HoneError("the server is closing")
                held = self._held.get(name)
                if held is None or held.stand.stamp != stand.stamp:
                    held = self._open(name, stand)
                    self._held[name] = held
                    self._let_go(held)
        held.weights.used_s = held.weights.asked_s[held.adapter] = time.monotonic()
        return held

    def _open(self, name: str, stand: Stand) -> _Held:
        """The same weights under another name are not loaded twice."""
        others = [held for one in self._bases.values() for held in one.adapters.values()]
        for other in [*self._held.values(), *others]:
            if other.stand.stamp == stand.stamp:
                voice = replace(other.voice, name=name)
                return replace(other, voice=voice, stand=stand)
        place = stand.place()
        if place.kind == "model" and not _is_run_of_its_own(place):
            weights = self._base(place.folder, place)
            return self._ready(name, stand, place, weights, BASE)
        if _rides(place):
            weights = self._base(place.base, place)
            if weights.batch.decoder.mixes:
                return self._ready(name, stand, place, weights, self._put_on(weights, place))
        return self._alone(name, stand, place)

    def _ready(
        self, name: str, stand: Stand, place: Place, weights: _Weights, adapter: str
    ) -> _Held:
        read = reading_of(place)
        voice, writes = self._alike(read) or _new_voice(read, reading_of(place))
        voice = replace(
            voice, name=name, source=str(place.folder), stop_ids=read.stop_ids, limit=read.limit
        )
        held = _Held(voice, weights, adapter, _width(weights.batch), stand, writes)
        if adapter != BASE:
            weights.adapters[adapter] = held
        return held

    def _alike(self, read: Reading) -> tuple[Voice, TextTokenizer] | None:
        """The voice of another model with the same tokenizer and template: a vocabulary is held once."""
        mine = read.renderer
        for other in self._held.values():
            known = other.voice.renderer
            if (
                known.tokenizer.fingerprint == mine.tokenizer.fingerprint
                and known.template.fingerprint == mine.template.fingerprint
            ):
                return other.voice, other.writes
        return None

    def _base(self, folder: Path, place: Place) -> _Weights:
        """The weights of a base, loaded once."""
        found = self._bases.get(folder.resolve())
        if found is None:
            batches = reading_of(place).batches
            found = self._started(load_base(folder), batches=batches, name=folder.name)
            self._bases[folder.resolve()] = found
        return found

    def _put_on(self, weights: _Weights, place: Place) -> str:
        """Load an adapter beside the others; the name that PEFT knows it by."""
        adapter = f"a{next(self._numbers)}"

        def load(folder: Path) -> None:
            decoder = weights.batch.decoder
            decoder.model = add_adapter(decoder.model, folder, adapter)
            decoder.adapters_changed()

        if place.kind == "adapter" or place.config is None:
            weights.batch.between_steps(lambda: load(place.folder))
            return adapter
        with tempfile.TemporaryDirectory(prefix="hone-") as made:
            folder = Path(made)
            write_adapter(place.folder, place.config, place.base, folder)
            weights.batch.between_steps(lambda: load(folder))
        return adapter

    def _alone(self, name: str, stand: Stand, place: Place) -> _Held:
        """Weights of their own: a fully tuned model, or an adapter that cannot stand beside others."""
        opened = open_place(place).completer
        read = reading_of(place)
        # The batch asks for no adapter by name: the one that is there answers.
        weights = self._started(opened.model, batches=read.batches, name=name)
        self._own[place.folder.resolve()] = weights
        held = self._ready(name, stand, place, weights, BASE)
        held.adapter = weights.batch.decoder.active
        return held

    def _started(self, model: PreTrainedModel | PeftModel, *, batches: bool, name: str) -> _Weights:
        return _Weights(Batch(decoder_of(model, batches=batches), self._bounds, name=name))

    def _let_go(self, but: _Held) -> None:
        """Close what was asked for longest ago, where there is too much and nobody uses it."""
        weights = but.weights
        spare = sorted(weights.adapters, key=lambda adapter: weights.asked_s.get(adapter, 0.0))
        for adapter in [name for name in spare if name != but.adapter][
            : max(0, len(spare) - _MOST_ADAPTERS)
        ]:
            self._take_off(weights, adapter)
        if len(self._own) <= _MOST_SPARES + sum(not one.grows for one in self._served.values()) + 1:
            return
        for folder, own in sorted(self._own.items(), key=lambda item: item[1].used_s):
            if own is not weights and not own.batch.busy:
                del self._own[folder]
                self._held = {n: h for n, h in self._held.items() if h.weights is not own}
                own.batch.close()
                return

    def _take_off(self, weights: _Weights, adapter: str) -> None:
        def remove() -> bool:
            decoder = weights.batch.decoder
            weights.gone.add(adapter)
            if weights.batch.uses(adapter):
                weights.gone.discard(adapter)
                return False
            if isinstance(decoder.model, PeftModel):
                decoder.model.delete_adapter(adapter)
                decoder.adapters_changed()
            return True

        if not weights.batch.between_steps(remove):
            return
        weights.adapters.pop(adapter, None)
        gone = [n for n, h in self._held.items() if h.weights is weights and h.adapter == adapter]
        for name in gone:
            del self._held[name]


def _rides(place: Place) -> bool:
    """Whether it can stand beside others on the base."""
    if place.kind == "adapter":
        quantized = place.config is not None and place.config.tuning.method == "qlora"
        return not quantized and stands_beside_others(place.folder)
    return place.kind == "checkpoint" and place.config is not None and is_plain(place.config)


def _is_run_of_its_own(place: Place) -> bool:
    """A fully tuned run is a model, and a checkpoint of another run may take its place."""
    return place.config is not None


def _new_voice(read: Reading, again: Reading) -> tuple[Voice, TextTokenizer]:
    tokenizer = read.renderer.tokenizer
    ends = [tokenizer.decode([i]) for i in read.stop_ids]
    dialect = find_dialect(read.renderer.template, ends)
    voice = Voice("", read.renderer, read.stop_ids, read.limit, dialect, "")
    return voice, again.renderer.tokenizer


def _width(batch: Batch) -> int:
    model = batch.decoder.model
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    return row_count(plain) if isinstance(plain, PreTrainedModel) else 0
