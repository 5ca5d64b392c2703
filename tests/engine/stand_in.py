"""A loss module and a source of steps small enough for tests of the loop, and real: parameters, gradients,
packs laid out by the same layout as ever."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hone.data.layout import branch, lay_out
from hone.pack import Pack, Step

VOCABULARY = 29


class TinyLoss(nn.Module):
    """Each position predicts from the mean of what it sees, by the Pack's own visibility rule.

    `noise` multiplies hidden states by numbers from torch's generator: then a run repeats only if the
    generator's state does. `fault(pack)` runs in each forward, after the noise, and may raise, or return a factor.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        width: int = 12,
        noise: float = 0.0,
        fault: Callable[[Pack], float] | None = None,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed = nn.Parameter(torch.randn(VOCABULARY, width, generator=generator))
        with torch.random.fork_rng():  # a module made here or there leaves the run's numbers alone
            self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Parameter(torch.randn(width, VOCABULARY, generator=generator) / 4)
        self.frozen = nn.Parameter(torch.ones(width), requires_grad=False)
        with torch.no_grad():
            self.mix.weight.copy_(torch.randn(width, width, generator=generator) / 4)
            self.mix.bias.zero_()
        self.noise = noise
        self.fault = fault
        self.begun: list[tuple[int, int]] = []
        self.row_terms: Tensor | None = None

    def begin_step(self, step: int, seed: int) -> None:
        self.begun.append((step, seed))

    def forward(self, pack: Pack, scale: float) -> Tensor:
        places = torch.arange(pack.num_tokens)
        until = torch.from_numpy(pack.visible_until)
        sees = (places[None, :] <= places[:, None]) & (places[:, None] < until[None, :])
        context = sees.float() @ self.embed[torch.from_numpy(pack.input_ids)]
        context = context / sees.sum(dim=1, keepdim=True) * self.frozen
        hidden = self.norm(torch.tanh(self.mix(context)))
        if self.training and self.noise:
            hidden = hidden * (1 + self.noise * torch.rand(hidden.shape))
        factor = 1.0 if self.fault is None else self.fault(pack)
        logits = hidden[torch.from_numpy(pack.predict)] @ self.head
        nll = -torch.log_softmax(logits, dim=-1)[
            torch.from_numpy(pack.source), torch.from_numpy(pack.target)
        ]
        terms = scale * factor * torch.from_numpy(pack.weight) * nll
        by_row = torch.zeros(pack.num_rows)
        self.row_terms = by_row.index_add(0, torch.from_numpy(pack.row).long(), terms.detach())
        return scale * factor * (torch.from_numpy(pack.weight) * nll).sum()


class TinySource:
    """Random rows of a seed, `batch` per step, in file order, round and round."""

    def __init__(
        self,
        *,
        rows: int = 12,
        batch: int = 4,
        seed: int = 0,
        longest: int = 14,
        share: bool = True,
    ) -> None:
        self.share = share
        rng = np.random.default_rng(seed)
        self.batch = batch
        self.rows: list[tuple[np.ndarray, np.ndarray]] = []
        for _ in range(rows):
            length = int(rng.integers(4, longest + 1))
            ids = rng.integers(0, VOCABULARY, length).astype(np.int32)
            ids[:2] = 1  # rows begin alike
            weight = (rng.random(length) < 0.6).astype(np.float32)
            weight[0], weight[-1] = 0.0, 1.0
            self.rows.append((ids, weight))
        self.asked: list[tuple[int, int]] = []

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.rows) // self.batch)

    def step(self, index: int, micro_batch_tokens: int) -> Step:
        self.asked.append((index, micro_batch_tokens))
        first = index % self.steps_per_epoch * self.batch
        chosen = range(first, min(first + self.batch, len(self.rows)))
        branches = [
            cut
            for place, row in enumerate(chosen)
            if (cut := branch(place, *self.rows[row])) is not None
        ]
        return Step(
            index=index,
            packs=lay_out(
                branches, budget=micro_batch_tokens, share_prefixes=self.share, pack=True
            ),
            row_names=tuple(f"rows.jsonl:{row + 1}" for row in chosen),
            tokens=sum(len(self.rows[row][0]) for row in chosen),
            trained_tokens=sum(len(item.target) for item in branches),
            weight=float(sum(item.weight.sum() for item in branches)),
        )


class Said:
    """A `say` that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def __call__(self, event: str, /, **fields: object) -> None:
        self.events.append((event, fields))

    def of(self, name: str) -> list[dict[str, object]]:
        return [fields for event, fields in self.events if event == name]

    @property
    def names(self) -> Sequence[str]:
        return [event for event, _ in self.events]


def weights(module: nn.Module) -> dict[str, bytes]:
    """Every weight's bytes, for comparison bit for bit."""
    return {name: p.detach().numpy().tobytes() for name, p in module.named_parameters()}
