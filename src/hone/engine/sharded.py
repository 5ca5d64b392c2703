"""FSDP2: each rank holds a slice of every weight, and gathers a layer while it computes it (Zhao et al. 2023).

torch's `fully_shard` does it, on each decoder layer and on the whole `PackLoss`. The optimizer sees this rank's
slices as plain tensors, so that any optimizer that moves each number by itself works on them. All ranks make the
same number of passes: in each pass they wait for each other, so none can redo a step alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor import Shard as DTensorShard

from hone.engine.deal import empty_pack
from hone.engine.loss import PackLoss
from hone.engine.optimizer import places_of, trained_parameters
from hone.engine.progress import Progress
from hone.engine.ranks import Ranks
from hone.engine.shards import Shard, read_parts, read_weight_parts, write_parts
from hone.engine.state import optimizer_tensors, state_bytes
from hone.engine.strategy import same_number
from hone.pack import Pack


class Sharded:
    """A PackLoss whose weights lie in slices on the ranks. It is changed in place, before any optimizer."""

    redoes = False

    def __init__(self, loss: PackLoss, ranks: Ranks) -> None:
        self.ranks = ranks
        self.loss_scale = float(ranks.world)
        self.optimizer: torch.optim.Optimizer | None = None
        self.places = places_of(loss, trained_parameters(loss))
        _shard(loss, ranks)
        self._loss = loss
        self._slices = {n: cast(DTensor, p) for n, p in loss.named_parameters() if p.requires_grad}
        self._shards = {name: _shard_of(p) for name, p in self._slices.items()}
        self.trained = {
            name: nn.Parameter(p.to_local().detach()) for name, p in self._slices.items()
        }
        self._parameters = list(self.trained.values())

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer of this rank's slices."""
        self.optimizer = optimizer

    def passes(self, hands: Sequence[Sequence[Pack]]) -> Sequence[Pack]:
        """As many on every rank: empty Packs fill up."""
        return same_number(hands, self.ranks.rank, empty_pack())

    def forward(self, pack: Pack, scale: float) -> Tensor:
        """Without a gradient; what was gathered is let go of again."""
        term: Tensor = self._loss(pack, scale)
        cast(FSDPModule, self._loss).reshard()
        return term

    def backward(self, pack: Pack, scale: float, *, last: bool) -> Tensor:
        """The gradient of each slice is averaged over the ranks, so the loss is scaled by their number."""
        del last
        term: Tensor = self._loss(pack, scale * self.loss_scale)
        cast("Any", term).backward()
        return term.detach() / self.loss_scale

    def reduce(self) -> None:
        """It is made in the backward passes; the optimizer's slices get theirs."""
        for name, whole in self._slices.items():
            gradient = cast("DTensor | None", whole.grad)
            self.trained[name].grad = None if gradient is None else gradient.to_local().detach()

    def norm(self) -> Tensor:
        """Squares are added up over the slices of all ranks."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        squares = torch.stack([g.double().square().sum() for g in gradients]).sum()
        return self.ranks.sum_(squares, "the gradient norm").sqrt().float()

    def update(self, norm: Tensor | None, norm_value: float, max_norm: float) -> float:
        """Each rank moves its slices."""
        if norm is not None and 0 < max_norm < norm_value:
            factor = max_norm / (norm + 1e-6)
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
        cast("Any", self.optimizer).step()
        self.discard()
        return norm_value

    def discard(self) -> None:
        """Forget the gradients."""
        for name, whole in self._slices.items():
            whole.grad = None
            self.trained[name].grad = None

    def state_bytes(self) -> int:
        """All ranks' slices together: this rank's, times their number."""
        own = state_bytes(self.trained, cast(torch.optim.Optimizer, self.optimizer))
        return own * self.ranks.world

    def write(self, folder: Path, progress: Progress) -> None:
        """Each rank writes its slices."""
        write_parts(
            folder,
            weights=self._weights,
            kept=self._kept,
            shards=self._shards,
            progress=progress,
            ranks=self.ranks,
        )

    def read(self, folder: Path) -> Progress:
        """Each rank reads its slices, from a state of any number of ranks."""
        return read_parts(
            folder,
            weights=self._weights,
            kept=self._kept,
            shards=self._shards,
            ranks=self.ranks,
        )

    def read_weights(self, folder: Path) -> None:
        """Each rank reads its slices of the weights."""
        read_weight_parts(folder, weights=self._weights, shards=self._shards)

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One tensor after the other, so that no rank but the first ever holds more than one."""
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            self.ranks.work(f"gathering {name}")
            whole = tensor.detach()
            if isinstance(whole, DTensor):
                whole = whole.full_tensor()
            if self.ranks.is_first:
                found[name] = whole.cpu()
        return found

    @property
    def _weights(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.trained.items()}

    @property
    def _kept(self) -> dict[str, Tensor]:
        return optimizer_tensors(self.trained, cast(torch.optim.Optimizer, self.optimizer))


def _shard(loss: PackLoss, ranks: Ranks) -> None:
    """Cut every weight along its first dimension. RuntimeError where one is left whole: a run that says it is
    sharded must be."""
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    inside = MixedPrecisionPolicy()
    if loss.autocast is not None:
        # Only layers: their products are in that type anyway. Sums, embeddings and losses stay in float32.
        inside = MixedPrecisionPolicy(
            param_dtype=loss.autocast, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    for layer in decoder_layers(loss):
        fully_shard(layer, mesh=mesh, mp_policy=inside)
    fully_shard(loss, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))
    for name, parameter in loss.named_parameters():
        if not isinstance(parameter, DTensor) or parameter.placements != (DTensorShard(0),):
            raise RuntimeError(f"{name} is not sharded")


def decoder_layers(loss: PackLoss) -> list[nn.Module]:
    """What is gathered at a time: the modules that the family says must stay in one piece."""
    names = set(cast("list[str]", getattr(loss.model, "_no_split_modules", None) or []))
    found = [module for module in loss.model.modules() if type(module).__name__ in names]
    if not found:
        lists = [m for m in loss.model.modules() if isinstance(m, nn.ModuleList)]
        found = list(max(lists, key=len, default=nn.ModuleList()))
    return found


def _shard_of(parameter: DTensor) -> Shard:
    """Where this rank's slice begins: FSDP2 cuts rows into equal chunks, the last ones shorter or empty."""
    rows, world = parameter.shape[0], parameter.device_mesh.size()
    chunk = -(-rows // world)
    return Shard(tuple(parameter.shape), min(rows, chunk * parameter.device_mesh.get_local_rank()))
