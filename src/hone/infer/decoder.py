"""A step of a model over many conversations: the tokens that are new of each in, logits where one is to be written.

Two kinds: rows of a batch (`Batched`), and one after the other (`Lonely`) for models whose rows cannot stand
together. Neither knows text, requests or threads.

Legend: N tokens of a step, n places where logits are wanted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from hone.infer import row_attention
from hone.infer.kv import Slots
from hone.infer.row_attention import RowsNow, Span
from hone.models.load import quiet, takes_packs

BASE = "__base__"
"""PEFT's name for no adapter at all."""


@dataclass(eq=False)
class Seat:
    """One conversation in a decoder: which adapter it is for, and how much of it has been read."""

    adapter: str = BASE
    read: int = 0
    slot: int = -1
    cache: Any = None
    ids: list[int] = field(default_factory=list[int])


@dataclass(frozen=True)
class Line:
    """New tokens of a conversation, and whether what follows them is wanted."""

    seat: Seat
    ids: Sequence[int]
    wants_next: bool


class Decoder(Protocol):
    """Runs steps."""

    model: PreTrainedModel | PeftModel

    @property
    def bytes_per_token(self) -> int:
        """What a token of a conversation takes while that is under way, about."""
        ...

    @property
    def active(self) -> str:
        """The adapter that answers where none is named; `BASE` where there is none."""
        ...

    @property
    def mixes(self) -> bool:
        """Whether conversations of several adapters may be under way at once."""
        ...

    def enter(self, seat: Seat) -> None:
        """A conversation begins."""
        ...

    def leave(self, seat: Seat) -> None:
        """A conversation is over."""
        ...

    def adapters_changed(self) -> None:
        """Adapters came or went."""
        ...

    def step(self, lines: Sequence[Line]) -> Tensor:
        """Read the tokens of `lines`; returns float32 logits [n, V], one for each line that wants what follows."""
        ...


class Batched:
    """All lines in one forward pass, whatever their adapters."""

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self.model = model
        self._plain = plain_model(model)
        row_attention.register()
        with quiet():
            self._plain.set_attn_implementation(row_attention.NAME)
        model.eval()
        self._slots = Slots()
        self._seats: list[Seat] = []
        self._names: list[str] | None = None  # the adapter of each token of this step
        self._wanted: Tensor | None = None  # places of the step whose logits are wanted
        self._hooked: dict[nn.Module, Any] = {}
        self._active: str | None = None
        self.adapters_changed()

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers, by the config."""
        return bytes_per_token(self._plain)

    def adapters_changed(self) -> None:
        """Tell this after adapters came or went."""
        self.unhook()
        head = cast(nn.Module, self._plain.get_output_embeddings())
        hook: Any = self._name_tokens
        for module in cast("Iterable[Any]", self._plain.modules()):
            if isinstance(module, LoraLayer) and module is not cast(Any, head):
                layer = cast(nn.Module, module)
                self._hooked[layer] = layer.register_forward_pre_hook(hook, with_kwargs=True)
        choose: Any = self._choose_places
        self._hooked[head] = head.register_forward_pre_hook(choose, with_kwargs=True)
        self._active = None
        if isinstance(self.model, PeftModel):
            names = self.model.active_adapters
            self._active = names[0] if names else None

    def unhook(self) -> None:
        """Take what was put on the model's layers off."""
        for handle in self._hooked.values():
            handle.remove()
        self._hooked.clear()

    @property
    def active(self) -> str:
        """As `Decoder.active`."""
        return self._active or BASE

    @property
    def mixes(self) -> bool:
        """PEFT takes the adapter of each token."""
        return True

    def enter(self, seat: Seat) -> None:
        """Give it the next slot."""
        seat.slot = len(self._seats)
        self._seats.append(seat)

    @torch.inference_mode()
    def leave(self, seat: Seat) -> None:
        """Fill its slot with the last one, so that those in use stay together."""
        last = self._seats.pop()
        if last is not seat:
            self._slots.move(last.slot, seat.slot, last.read)
            self._seats[seat.slot] = last
            last.slot = seat.slot
        seat.slot = -1
        if not self._seats:
            self._slots.clear()

    @torch.inference_mode()
    def step(self, lines: Sequence[Line]) -> Tensor:
        """As `Decoder.step`."""
        writing = sorted((line for line in lines if _is_writing(line)), key=lambda x: x.seat.slot)
        prompts = [line for line in lines if not _is_writing(line)]
        ordered = [*writing, *prompts]
        device = self._plain.device
        spans: list[Span] = []
        last_of: dict[int, int] = {}
        at = 0
        for line in ordered:
            if not _is_writing(line):
                spans.append(Span(line.seat.slot, at, line.seat.read, len(line.ids)))
            at += len(line.ids)
            last_of[id(line)] = at - 1
        ends = [line.seat.read + len(line.ids) for line in ordered]
        self._slots.reserve(len(self._seats), max(ends))
        slots, places = [x.seat.slot for x in writing], [x.seat.read for x in writing]
        now = RowsNow(self._slots, slots, places, spans, device)
        ids = [i for line in ordered for i in line.ids]
        positions = [line.seat.read + k for line in ordered for k in range(len(line.ids))]
        wanted = [last_of[id(line)] for line in lines if line.wants_next]
        logits = self._forward(ids, positions, self._adapters(ordered), wanted, now)
        for line in ordered:
            line.seat.read += len(line.ids)
        return logits

    def _forward(
        self,
        ids: list[int],
        positions: list[int],
        names: list[str] | None,
        wanted: list[int],
        now: RowsNow,
    ) -> Tensor:
        device = self._plain.device
        self._names = names
        self._wanted = torch.tensor(wanted or [0], device=device)
        try:
            out = cast(Any, self._plain)(
                input_ids=torch.tensor(ids, device=device)[:, None],
                position_ids=torch.tensor(positions, device=device)[:, None],
                use_cache=False,
                **{row_attention.ARGUMENT: now},
            )
        finally:
            self._names = self._wanted = None
        return cast(Tensor, out.logits)[: len(wanted), 0].float()

    def _adapters(self, ordered: Sequence[Line]) -> list[str] | None:
        """Each token's adapter; None where all are for the one that is active."""
        if self._active is None or all(line.seat.adapter == self._active for line in ordered):
            return None
        return [line.seat.adapter for line in ordered for _ in line.ids]

    def _name_tokens(
        self, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """PEFT takes the adapter of each batch row, and here each token is one."""
        if self._names is not None:
            named = {**named, "adapter_names": self._names}
        return given, named

    def _choose_places(
        self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The head runs only where a token is to be written."""
        if self._wanted is None:
            return given, named
        if self._names is not None and isinstance(module, LoraLayer):
            named = {**named, "adapter_names": [self._names[int(i)] for i in self._wanted]}
        return (given[0][self._wanted], *given[1:]), named


class Lonely:
    """One conversation after the other, with the family's own cache, or none where it has none."""

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self.model = model
        self._plain = plain_model(model)
        model.eval()

    @property
    def bytes_per_token(self) -> int:
        """As for a batch; a recurrent state takes less."""
        return bytes_per_token(self._plain)

    @property
    def active(self) -> str:
        """What the model has answers: nothing is chosen here."""
        return BASE

    @property
    def mixes(self) -> bool:
        """The model is used as it is."""
        return False

    def adapters_changed(self) -> None:
        """Nothing is kept of them."""

    def enter(self, seat: Seat) -> None:
        """Nothing is held before its first token."""

    def leave(self, seat: Seat) -> None:
        """Its cache goes with it."""
        seat.cache = None

    @torch.inference_mode()
    def step(self, lines: Sequence[Line]) -> Tensor:
        """As `Decoder.step`."""
        found = [self._next(line) for line in lines if self._reads(line)]
        return torch.stack(found) if found else torch.empty((0, 0))

    def _reads(self, line: Line) -> bool:
        # A prompt in parts would be another computation than one in a piece for some of these models.
        line.seat.ids += line.ids
        return line.wants_next

    def _next(self, line: Line) -> Tensor:
        seat = line.seat
        cached = seat.cache is not None
        ids = seat.ids[seat.read :] if cached else seat.ids
        options: dict[str, Any] = {"past_key_values": seat.cache} if cached else {}
        tensor = torch.tensor([ids], device=self._plain.device)
        with quiet():
            out = cast(Any, self._plain)(input_ids=tensor, use_cache=True, **options)
        seat.cache = getattr(out, "past_key_values", None)
        seat.read = len(seat.ids)
        return cast(Tensor, out.logits)[0, -1].float()


def decoder_of(model: PreTrainedModel | PeftModel, *, batches: bool) -> Batched | Lonely:
    """The decoder for a model: a batch where its rows may stand together and that gives its own logits."""
    if not batches or not takes_packs(plain_model(model)):
        return Lonely(model)
    stock = str(getattr(plain_model(model).config, "_attn_implementation", None) or "eager")
    made = Batched(model)
    if _agrees(made, stock):
        return made
    with quiet():
        plain_model(model).set_attn_implementation(stock)
    made.unhook()
    return Lonely(model)


def _agrees(batched: Batched, stock: str) -> bool:
    """Whether two short rows, one of them read in parts, get the model's own logits."""
    plain = plain_model(batched.model)
    vocabulary = int(plain.config.get_text_config().vocab_size)
    rows = [[(7919 * (k + s) + 3) % vocabulary for k in range(11 - 4 * s)] for s in range(2)]
    want: list[Tensor] = []
    with quiet(), torch.inference_mode():
        plain.set_attn_implementation(stock)
        for row in rows:
            ids = torch.tensor([row], device=plain.device)
            want.append(cast(Any, plain)(input_ids=ids, use_cache=False).logits[0, -1].float())
        plain.set_attn_implementation(row_attention.NAME)
    seats = [Seat(batched.active), Seat(batched.active)]
    for seat in seats:
        batched.enter(seat)
    try:
        first = [Line(s, r[:-2], wants_next=False) for s, r in zip(seats, rows, strict=True)]
        batched.step(first)
        batched.step(
            [Line(s, r[-2:-1], wants_next=False) for s, r in zip(seats, rows, strict=True)]
        )
        got = batched.step(
            [Line(s, r[-1:], wants_next=True) for s, r in zip(seats, rows, strict=True)]
        )
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False  # a family that does not ask the attention interface as it says
    finally:
        for seat in seats:
            batched.leave(seat)
    room = 3e-2 if got.dtype != torch.float64 and plain.dtype == torch.bfloat16 else 1e-3
    return all(
        bool(torch.allclose(g, w, rtol=room, atol=room * float(w.abs().max())))
        for g, w in zip(got, want, strict=True)
    )


def plain_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model of transformers, inside the adapters where there are some."""
    if isinstance(model, PeftModel):
        return cast(PreTrainedModel, model.get_base_model())
    return model


def bytes_per_token(model: PreTrainedModel) -> int:
    """Keys and values of one token in all layers, by the config."""
    config: Any = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    element = torch.empty(0, dtype=model.dtype).element_size()
    return 2 * int(config.num_hidden_layers) * groups * size * element


def _is_writing(line: Line) -> bool:
    """One token after a past: these stand together in one product."""
    return len(line.ids) == 1 and line.seat.read > 0
