"""ZeRO 1, 2 and 3 through DeepSpeed (Rajbhandari et al. 2020): optimizer state, gradients and weights in parts.

What a step computes stays ours: the loss is scaled by the ranks over the step's weight, the end of a step is set
here, clipping is written out, and a gradient norm that is no number moves nothing. Saved is what any strategy can
read, whole tensors dealt over the ranks, never DeepSpeed's own pickled state.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hone.engine.deal import empty_pack
from hone.engine.loss import PackLoss
from hone.engine.optimizer import places_of, set_learning_rate, trained_parameters
from hone.engine.progress import Progress
from hone.engine.ranks import Ranks
from hone.engine.shards import Parts, Shard, read_progress, write_parts
from hone.engine.state import of_another_run, read_random_state, state_bytes
from hone.engine.strategy import same_number
from hone.errors import EnvironmentFault
from hone.pack import Pack


class Zero:
    """A PackLoss under a DeepSpeed engine, made when the first pass or the first state needs it.

    `settings` are DeepSpeed's own, resolved: nothing in them is `auto` any more.
    """

    redoes = False

    def __init__(self, loss: PackLoss, ranks: Ranks, settings: Mapping[str, Any]) -> None:
        self.ranks = ranks
        self.optimizer: torch.optim.Optimizer | None = None
        self.loss_scale = float(ranks.world)
        self.trained = trained_parameters(loss)
        self.places = places_of(loss, self.trained)
        self._loss = loss
        self._settings = dict(settings)
        self._stage = int(settings["zero_optimization"]["stage"])
        self._shapes = {name: tuple(p.shape) for name, p in self.trained.items()}
        self._bytes = 0
        self._started: Any = None

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer; DeepSpeed will hand it its own flat parts of the weights."""
        self._bytes = state_bytes(self.trained, optimizer)
        optimizer.state.clear()  # of whole weights, which nobody moves
        self.optimizer = optimizer

    def passes(self, hands: Sequence[Sequence[Pack]]) -> Sequence[Pack]:
        """As many on every rank: empty Packs fill up."""
        return same_number(hands, self.ranks.rank, empty_pack())

    def forward(self, pack: Pack, scale: float) -> Tensor:
        """Without a gradient."""
        return cast(Tensor, self._engine(pack, scale))

    def backward(self, pack: Pack, scale: float, *, last: bool) -> Tensor:
        """DeepSpeed averages over the ranks, so the loss is scaled by their number."""
        engine = self._engine
        engine.set_gradient_accumulation_boundary(last)
        term: Tensor = engine(pack, scale * self.loss_scale)
        engine.backward(term, scale_wrt_gas=False)
        return term.detach() / self.loss_scale

    def reduce(self) -> None:
        """Done in the backward passes."""

    def norm(self) -> None:
        """Known only to the update."""

    def update(self, norm: Tensor | None, norm_value: float, max_norm: float) -> float:
        """Clip, and move what is finite; returns the norm, infinite where nothing was moved."""
        del norm, norm_value
        assert max_norm == self._settings["gradient_clipping"]
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def discard(self) -> None:
        """Forget the gradients of a rehearsal: a step at rate 0, and its moments set back to zero."""
        optimizer = cast(torch.optim.Optimizer, self.optimizer)
        set_learning_rate(optimizer, 0.0)
        self._engine.step()
        for state in optimizer.state.values():
            for kept in cast("dict[str, object]", state).values():
                if isinstance(kept, Tensor):
                    kept.zero_()

    def state_bytes(self) -> int:
        """Weights and moments, all ranks together."""
        return self._bytes

    def write(self, folder: Path, progress: Progress) -> None:
        """Each tensor is put together on all ranks, and written by one of them in turn."""
        engine, utils = self._engine, _deepspeed().utils
        del engine
        weights: dict[str, Tensor] = {}
        kept: dict[str, Tensor] = {}
        for turn, (name, parameter) in enumerate(self.trained.items()):
            self.ranks.work(f"saving {name}")
            mine = turn % self.ranks.world == self.ranks.rank
            whole = utils.safe_get_full_fp32_param(parameter)
            moments = {
                key: utils.safe_get_full_optimizer_state(parameter, key) for key in self._keys
            }
            if mine:
                weights[name] = whole.detach().cpu().clone()
                for key, moment in moments.items():
                    kept[f"{key}/{name}"] = moment.detach().view(whole.shape).cpu().clone()
                for key, number in self._scalars().items():
                    kept[f"{key}/{name}"] = number.detach().cpu().clone()
        write_parts(
            folder, weights=weights, kept=kept, shards={}, progress=progress, ranks=self.ranks
        )

    def read(self, folder: Path) -> Progress:
        """Each rank reads whole tensors and keeps its part of them."""
        self.read_weights(folder)
        try:
            with Parts.opened(folder, "optimizer") as parts:
                for name, parameter in self.trained.items():
                    for key in self._keys:
                        self._set_moment(parameter, key, self._whole(parts, f"{key}/{name}", name))
                for key, number in self._scalars().items():
                    parts.fill(number, f"{key}/{next(iter(self.trained))}", Shard(()))
                self._spread_scalars()
            read_random_state(folder, rank=self.ranks.rank, world=self.ranks.world)
            return read_progress(folder)
        except (OSError, ValueError, SafetensorError) as error:
            raise of_another_run(folder, str(error)) from error

    def read_weights(self, folder: Path) -> None:
        """Each rank reads whole weights and keeps its part of them."""
        try:
            with Parts.opened(folder, "weights") as parts:
                for name, parameter in self.trained.items():
                    self._set_weight(parameter, self._whole(parts, name, name))
        except (OSError, ValueError, SafetensorError) as error:
            raise of_another_run(folder, str(error)) from error

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One tensor after the other, so that no rank but the first ever holds more than one."""
        engine, zero = self._engine, _deepspeed().zero
        del engine
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            self.ranks.work(f"gathering {name}")
            parts = [tensor] if hasattr(tensor, "ds_id") else []
            with zero.GatheredParameters(parts):
                if self.ranks.is_first:
                    found[name] = tensor.detach().cpu().clone()
        return found

    @property
    def _engine(self) -> Any:
        if self._started is None:
            self._started = self._start()
            if self._stage < 3:
                self._allocate()
            # One step over nothing: only then do optimizers have moments that can be saved and filled.
            self.backward(empty_pack(), 1.0, last=True)
            self.discard()
        return self._started

    def _allocate(self) -> None:
        """Let the optimizer make its moments of every group's part now: DeepSpeed links those that it finds in the
        first group's first step, and would never see the others'."""
        optimizer = cast(torch.optim.Optimizer, self.optimizer)
        set_learning_rate(optimizer, 0.0)
        parts: list[nn.Parameter] = [p for g in optimizer.param_groups for p in g["params"]]
        before = [part.grad for part in parts]  # with offload these are DeepSpeed's own buffers
        for part in parts:
            part.grad = torch.zeros_like(part)
        cast("Any", optimizer).step()
        for part, gradient in zip(parts, before, strict=True):
            part.grad = gradient

    def _start(self) -> Any:
        deepspeed = _deepspeed()
        backend = "nccl" if self.ranks.device.type == "cuda" else "gloo"
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
        if self._stage == 3:
            # The head is read outside its own forward, chunk by chunk.
            for parameter in self._loss.head.projection.parameters():
                deepspeed.zero.register_external_parameter(self._loss, parameter)
        started = deepspeed.initialize(
            model=self._loss, optimizer=self.optimizer, config=self._settings
        )
        return started[0]

    @property
    def _keys(self) -> list[str]:
        """What the optimizer keeps for each number of a weight."""
        return [key for key, kept in self._state().items() if kept.dim() > 0]

    def _scalars(self) -> dict[str, Tensor]:
        """What it keeps once for each part: how many steps it took."""
        return {key: kept for key, kept in self._state().items() if kept.dim() == 0}

    def _spread_scalars(self) -> None:
        scalars = self._scalars()
        for state in cast(torch.optim.Optimizer, self.optimizer).state.values():
            for key, number in scalars.items():
                cast("dict[str, Tensor]", state)[key].copy_(number)

    def _state(self) -> dict[str, Tensor]:
        states = cast(torch.optim.Optimizer, self.optimizer).state.values()
        first: dict[str, object] = next(iter(states)) if states else {}
        return {key: kept for key, kept in first.items() if isinstance(kept, Tensor)}

    def _whole(self, parts: Parts, key: str, name: str) -> Tensor:
        whole = torch.empty(self._shapes[name])
        parts.fill(whole, key, Shard.whole(whole))
        return whole

    def _set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        deepspeed, engine = _deepspeed(), self._engine
        del engine
        if self._stage < 3:
            parameter.data.copy_(value)
            deepspeed.utils.safe_set_full_fp32_param(parameter, value.to(parameter.device))
            return
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(value)
        deepspeed.utils.safe_set_local_fp32_param(parameter, self._slice(parameter, value))

    def _set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        utils = _deepspeed().utils
        if self._stage < 3:
            utils.safe_set_full_optimizer_state(parameter, value.to(parameter.device), key)
        else:
            utils.safe_set_local_optimizer_state(parameter, self._slice(parameter, value), key)

    def _slice(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        """This rank's part of a tensor laid flat; the last ranks' parts are filled up with zeros."""
        room = int(cast("Any", parameter).ds_tensor.numel())
        flat = torch.zeros(room * self.ranks.world)
        flat[: value.numel()] = value.reshape(-1)
        return flat[room * self.ranks.rank : room * (self.ranks.rank + 1)]


def _deepspeed() -> Any:
    try:
        return importlib.import_module("deepspeed")
    except ImportError as fault:
        raise EnvironmentFault(
            f"compute.deepspeed needs the package deepspeed, which does not load ({fault})",
            remedy="pip install 'hone[distributed]', or take compute.strategy=fsdp instead",
        ) from fault
