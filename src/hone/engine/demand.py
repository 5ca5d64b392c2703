"""How much memory a run asks for, by part: weights, gradients, optimizer, one pass. Arithmetic; no torch, nothing loaded.

What a pass keeps comes from `hone.models.kept`; here is what stands around it. Bytes are those of one device.

Legend: T tokens of a Pack, S its predicting positions, E hidden size, I MLP features, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Final, NamedTuple

from hone.engine.moments import OptimizerName, Place, moment_bytes
from hone.models.kept import Arithmetic, kept, layout_of
from hone.models.shape import Shape

CHUNK_BYTES: Final = 64 * 2**20
"""Logits of one chunk of the head in float32; a larger one gains nothing measurable."""
GPU_TIMES: Final = 8
"""As large on a GPU, whose products want more rows to be busy."""
KEEP_FREE: Final = {"cpu": 0.25, "cuda": 0.05}
"""Share of the free memory that is left alone."""

_CAPPED: Final = 8  # matrices of one block's scores that live at a time
_BLOCK: Final = 512  # queries whose capped scores are computed at a time
_MASTER: Final = 4  # bytes of a trained weight, and of its gradient


class Tensor(NamedTuple):
    """A trained tensor, as far as an optimizer cares."""

    shape: tuple[int, ...]
    place: Place = "inside"

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


QUANTIZED: Final = {
    "nf4": 0.5 + 4 / 64,
    "fp4": 0.5 + 4 / 64,
    "nf4-double": 0.5 + 1 / 64 + 4 / (64 * 256),
    "fp4-double": 0.5 + 1 / 64 + 4 / (64 * 256),
    "int8": 1.0,
}
"""Bytes a weight of a quantised layer: blocks of 64 with a scale each, the scales in 8 bits in their turn where they
are doubled (Dettmers et al., 2023); rows of int8 (their scales are not worth a term)."""


@dataclass(frozen=True)
class Subject:
    """What is trained, and how it is held."""

    shape: Shape
    how: Arithmetic
    weight_bytes: float
    """The base, as it is held."""
    held_in: str
    """Its type, in words."""
    trained: tuple[Tensor, ...]
    """Every tensor that moves."""
    beside: int
    """Of its numbers, those that stand beside the model's own weights: adapters, copies of modules, new rows."""
    optimizer: OptimizerName
    layers: int
    """Decoder layers through which gradients flow: from the first that trains to the last."""
    trains_head: bool
    on_card: bool = False
    is_split: bool = False
    """Whether float32 masters lie in two halves, of which one is what the step computes with."""
    restored_bytes: float = 0.0
    """The largest quantised weight, restored for its product."""

    @property
    def chunk_positions(self) -> int:
        """Predicting positions whose logits exist at a time."""
        size = CHUNK_BYTES * (GPU_TIMES if self.on_card else 1)
        return max(1, size // (4 * max(1, self.shape.vocabulary)))

    @property
    def trained_numbers(self) -> int:
        """How many numbers move."""
        return sum(tensor.numbers for tensor in self.trained)

    @property
    def adapter_bytes(self) -> float:
        """What stands beside the base, in float32."""
        return float(self.beside * _MASTER)

    @property
    def gradient_bytes(self) -> float:
        """One for each number that moves, in float32."""
        return float(self.trained_numbers * _MASTER)

    @property
    def state_bytes(self) -> float:
        """What the optimizer keeps."""
        kept = (moment_bytes(self.optimizer, one.shape, one.place) for one in self.trained)
        return float(sum(kept))

    @property
    def checkpoint_bytes(self) -> float:
        """Trained weights and the optimizer's state, as a checkpoint holds them."""
        return self.gradient_bytes + self.state_bytes


@dataclass(frozen=True)
class Pass:
    """The memory of one forward and backward pass, at its fullest."""

    attention: float
    mlp: float
    norms: float
    outside: float
    """Between and around the layers: what recomputation keeps of a layer, rotary tables, the last norm."""
    casts: float
    """Copies of weights that the pass makes: of float32 ones in bf16, of experts with their adapters."""
    again: float
    """One layer computed again."""
    backward: float
    """Gradients of activations on their way back, and what is made to get them."""
    head: float
    """Logits of one chunk, their gradient, and the gradient of the head where it is trained."""

    @property
    def kept(self) -> float:
        """What the forward pass leaves for the backward pass."""
        return self.attention + self.mlp + self.norms + self.outside + self.casts

    @property
    def peak(self) -> float:
        """The fuller of two moments: the head at the end of the forward pass, a layer in the backward pass."""
        return self.kept + max(self.head, self.again + self.backward)


def one_pass(
    subject: Subject, *, tokens: int, predictions: int, recomputed: int, longest: int = 0
) -> Pass:
    """A Pack of so many tokens and predicting positions, with so many layers computed again on the way back.

    `longest` is its longest row in tokens.
    """
    shape, how = subject.shape, subject.how
    each = kept(shape, how)
    again_layers = max(0, recomputed - (shape.layers - subject.layers))  # the first ones are
    layers = subject.layers - again_layers
    again = each.layer * tokens if again_layers else 0.0
    first_less = each.first_less if layers and not recomputed else 0.0
    head_kept = (
        predictions * shape.hidden * how.held
    )  # the gradient that waits for the backward pass
    casts = float(shape.expert_parameters * how.narrow) if how.experts_adapted else 0.0
    if how.precision == "bf16":
        cast = subject.beside
        if how.trains_all and not subject.is_split:
            cast = shape.parameters
        casts += 2.0 * cast
    head, kept_of_head = _head(subject, tokens, predictions)
    return Pass(
        attention=layers * each.attention * tokens,
        mlp=layers * each.mlp * tokens,
        norms=(layers * each.norms - first_less) * tokens,
        outside=(again_layers * each.residual + each.outside) * tokens,
        casts=casts,
        again=again,
        backward=_backward(shape, how) * tokens
        + head_kept
        + 2 * kept_of_head
        + subject.restored_bytes
        + _capped_scores(shape, longest),
        head=head + head_kept,
    )


def _head(subject: Subject, tokens: int, predictions: int) -> tuple[float, float]:
    """Bytes at the head's fullest, and bytes of the gradient of its matrix; 0 where it is not trained."""
    shape, how = subject.shape, subject.how
    chunk = subject.chunk_positions
    rows = min(predictions, chunk)
    logits = rows * shape.vocabulary
    # Logits, their float32 copy or its shifted form, and the exponentials of either.
    width = 12 if how.narrow == 4 else 10
    if shape.head_cap:  # then its backward is fuller: capped logits, tanh, the gradients of all three, one in float32
        width = 20 if how.narrow == 4 else 14
    states = (tokens + 2 * predictions) * shape.hidden * how.held  # hidden states, those picked
    matrix = float(shape.vocabulary * shape.hidden * _MASTER) if subject.trains_head else 0.0
    earlier = matrix if predictions > chunk else 0.0
    first = width * logits + earlier
    then = (8 * logits + matrix + earlier) if matrix else 0.0
    if matrix and how.narrow == 2:
        then += matrix / 2
    return states + max(first, then), matrix


def _backward(shape: Shape, how: Arithmetic) -> float:
    """Bytes a token in the backward pass beyond what was kept, at the last layer's MLP or the last norm."""
    layout, _ = layout_of(shape)
    into = 2 if layout.mlp.startswith("gated") else 1
    mlp = into * shape.intermediate * how.narrow + shape.hidden * how.held
    norm = shape.hidden * (3 * 4 + 2 * how.held)
    every = shape.query + 2 * shape.key
    # Sums over tiles and what one tile adds, in float32; under bf16 all that was kept is raised to it first.
    attention = 2 * every * 4 + shape.query * how.narrow
    if how.narrow == 2:
        attention += (every + 2 * shape.query) * 4 + every * how.narrow
    return float(max(mlp, norm, attention))


def _capped_scores(shape: Shape, longest: int) -> float:
    """Scores of one block of queries where a family caps them, and what is made of them, in float32."""
    return float(_CAPPED * shape.heads * min(_BLOCK, longest) * longest * 4 * shape.softcap)
