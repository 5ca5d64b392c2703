"""How much memory a run asks for, by part: weights, gradients, optimizer, one pass. Arithmetic; no torch, nothing loaded.

What a pass keeps comes from `hone.models.kept`; here is what stands around it. Bytes are those of one device.

Legend: T tokens of a Pack, S its predicting positions, E hidden size, I MLP features, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Final, NamedTuple

from hone.models.kept import Arithmetic, kept, layout_of
from hone.models.shape import Shape

CHUNK_BYTES: Final = 64 * 2**20
"""Logits of one chunk of the head in float32; a larger one gains nothing measurable."""

_MASTER: Final = 4  # bytes of a trained weight, and of its gradient


class Tensor(NamedTuple):
    """A trained tensor, as far as an optimizer cares."""

    shape: tuple[int, ...]
    is_embedding: bool = False

    @property
    def count(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


@dataclass(frozen=True)
class State:
    """What an optimizer keeps: bytes a number of a matrix, of any other tensor, and of a row or column."""

    matrix: float
    other: float
    edge: float = 0.0
    embedding: float | None = None
    """Of an embedding, where it is another than a matrix's."""
    least: int = 0
    """Numbers of the smallest tensor that is kept in 8 bits; a smaller one is kept in float32."""
    small: float = 8.0
    on_host: bool = False
    """Whether it may lie in the host's memory where a card is full."""

    def bytes_of(self, tensor: Tensor) -> float:
        """For one tensor."""
        if tensor.count < self.least:
            return self.small * tensor.count
        if len(tensor.shape) < 2:
            return self.other * tensor.count
        if tensor.is_embedding and self.embedding is not None:
            return self.embedding * tensor.count
        return self.matrix * tensor.count + self.edge * (tensor.shape[0] + tensor.shape[-1])


# Blocks of 256 numbers with a float32 scale (Dettmers et al., 2022), two moments or one.
_TWO_OF_8_BITS: Final = 2 * (1 + 4 / 256)
_ONE_OF_8_BITS: Final = 1 + 4 / 256
OPTIMIZERS: Final = {
    "adamw": State(8, 8),
    "paged_adamw": State(8, 8, on_host=True),
    "adamw_8bit": State(_TWO_OF_8_BITS, _TWO_OF_8_BITS, embedding=8, least=4096),
    "paged_adamw_8bit": State(
        _TWO_OF_8_BITS, _TWO_OF_8_BITS, embedding=8, least=4096, on_host=True
    ),
    "adafactor": State(0, 4, edge=4),
    "lion": State(4, 4),
    "lion_8bit": State(_ONE_OF_8_BITS, _ONE_OF_8_BITS, embedding=4, least=4096, small=4),
    "muon": State(4, 8, embedding=8),
    "sgd": State(0, 0),
}
"""By the name that a configuration uses."""

QUANTIZED: Final = {
    "nf4-double": 0.5 + 1 / 64 + 4 / (64 * 256),
    "fp4-double": 0.5 + 1 / 64 + 4 / (64 * 256),
    "nf4": 0.5 + 4 / 64,
    "fp4": 0.5 + 4 / 64,
    "int8": 1.0,
}
"""Bytes a weight of a linear layer, scales included: blocks of 64 (Dettmers et al., 2023), rows of int8."""


@dataclass(frozen=True)
class Subject:
    """What is trained, and how it is held."""

    shape: Shape
    how: Arithmetic
    trained: tuple[Tensor, ...]
    """Every tensor that moves."""
    beside: int
    """Of its numbers, those that stand beside the model's own weights: adapters."""
    optimizer: str = "adamw"
    quantized: str | None = None
    """A key of `QUANTIZED`."""
    trains_head: bool = False

    @property
    def trained_numbers(self) -> int:
        """How many numbers move."""
        return sum(tensor.count for tensor in self.trained)

    @property
    def weight_bytes(self) -> float:
        """The base in its type."""
        shape, width = self.shape, 4.0 if self.how.trains_all else float(self.how.narrow)
        if self.quantized is None:
            return shape.parameters * width
        linear = sum(weight.count for weight in shape.weights if weight.is_linear)
        return linear * QUANTIZED[self.quantized] + (shape.parameters - linear) * width

    @property
    def adapter_bytes(self) -> float:
        """Adapters, in float32."""
        return float(self.beside * _MASTER)

    @property
    def gradient_bytes(self) -> float:
        """One for each number that moves, in float32."""
        return float(self.trained_numbers * _MASTER)

    @property
    def state_bytes(self) -> float:
        """What the optimizer keeps."""
        state = OPTIMIZERS[self.optimizer]
        return sum(state.bytes_of(tensor) for tensor in self.trained)


@dataclass(frozen=True)
class Pass:
    """The memory of one forward and backward pass, at its fullest."""

    attention: float
    mlp: float
    norms: float
    outside: float
    """Between and around the layers: what recomputation keeps of a layer, rotary tables, the last norm."""
    casts: float
    """Copies of float32 weights in bf16, made for the pass."""
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


def one_pass(subject: Subject, *, tokens: int, predictions: int, recomputed: int) -> Pass:
    """A Pack of so many tokens and predicting positions, with so many layers computed again on the way back."""
    shape, how = subject.shape, subject.how
    each = kept(shape, how)
    layers = max(0, shape.layers - recomputed)
    again = each.layer * tokens if recomputed else 0.0
    first_less = each.first_less if layers and not recomputed else 0.0
    head_kept = (
        predictions * shape.hidden * how.held
    )  # the gradient that waits for the backward pass
    casts = 0.0
    if how.trains_all and how.precision == "bf16":
        casts = 2.0 * (shape.matrix_parameters + shape.vocabulary * shape.hidden)
    head, kept_of_head = _head(subject, tokens, predictions)
    return Pass(
        attention=layers * each.attention * tokens,
        mlp=layers * each.mlp * tokens,
        norms=(layers * each.norms - first_less) * tokens,
        outside=(recomputed * each.residual + each.outside) * tokens,
        casts=casts,
        again=again,
        backward=_backward(shape, how) * tokens + head_kept + 2 * kept_of_head,
        head=head + head_kept,
    )


def _head(subject: Subject, tokens: int, predictions: int) -> tuple[float, float]:
    """Bytes at the head's fullest, and bytes of the gradient of its matrix; 0 where it is not trained."""
    shape, how = subject.shape, subject.how
    chunk = max(1, CHUNK_BYTES // (4 * max(1, shape.vocabulary)))
    rows = min(predictions, chunk)
    logits = rows * shape.vocabulary
    # Logits, their float32 copy or its shifted form, and the exponentials of either.
    width = 12 if how.narrow == 4 else 10
    if shape.head_cap:
        width += 4 if how.narrow == 4 else 2
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
    return float(max(mlp, norm))


def adapters(shape: Shape, targets: str | Iterable[str], rank: int) -> tuple[Tensor, ...]:
    """The two matrices of each low-rank adapter (Hu et al., 2021): [r, in] and [out, r]."""
    found: list[Tensor] = []
    for weight in shape.adapted(targets):
        found += [Tensor((rank, weight.shape[1])), Tensor((weight.shape[0], rank))]
    return tuple(found)
