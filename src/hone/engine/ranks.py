"""The ranks of a run: the processes that share its steps, and how they agree. It knows no Packs and no model.

One process alone is the plain case: every question is then answered on the spot, and nothing is loaded. All ranks
ask the same questions in the same order. What travels is numbers, tensors and JSON, never a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Protocol, cast
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch import Tensor

from hone.errors import EnvironmentFault

Doing = Literal["pack", "work", "wait"]
"""One forward and backward; anything else of its own; waiting for other ranks."""


class Pulse(Protocol):
    """Hears what a rank does: the sign of life that a watchdog looks for."""

    def beat(self, doing: Doing, what: str) -> None:
        """The rank begins this now."""
        ...

    def expect(self, pack_seconds: float) -> None:
        """The longest Pack takes so long, as was measured."""
        ...


class Unheard:
    """A pulse that nobody listens to."""

    def beat(self, doing: Doing, what: str) -> None:
        """Nothing."""

    def expect(self, pack_seconds: float) -> None:
        """Nothing."""


JOIN_SECONDS = 600
"""How long machines wait for each other to be started."""
_BUCKET = 1 << 24  # numbers of one reduction: 64 MiB in float32
_FOREVER = timedelta(
    days=30
)  # who is stuck is judged by the watchdog, which sees more than one call


@dataclass(frozen=True)
class Ranks:
    """This process among its equals; `Ranks()` is one process alone."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Its number on its own machine."""
    local_world: int = 1
    """Ranks on its own machine."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where what is reduced lies."""
    pulse: Pulse = field(default_factory=Unheard)

    @classmethod
    def join(
        cls,
        *,
        rank: int,
        world: int,
        local_rank: int,
        local_world: int,
        device: torch.device,
        meeting: str | None,
        pulse: Pulse,
    ) -> Ranks:
        """Meet the others in the file `meeting`, or at `tcp://HOST:PORT`, where rank 0 listens; None where a process
        group stands already. Host numbers travel by gloo, tensors of a GPU by NCCL.

        Raises EnvironmentFault where not all come.
        """
        if meeting is not None:
            store = _store(meeting, rank, world)
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=world, timeout=_FOREVER
            )
        return cls(rank, world, local_rank, local_world, device, pulse)

    def leave(self) -> None:
        """Say goodbye, so that no thread of the transport is left."""
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the run's files and speaks for all."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self.world == 1

    def work(self, what: str) -> None:
        """Say what this rank is busy with, if no Pack."""
        self.pulse.beat("work", what)

    def pack(self, what: str) -> None:
        """Say which Pack this rank begins."""
        self.pulse.beat("pack", what)

    def any(self, flag: bool) -> bool:
        """Whether any rank says so."""
        return self.most(float(flag)) > 0

    def most(self, number: float) -> float:
        """The greatest number that a rank gives."""
        return number if self.is_alone else self._host([number], dist.ReduceOp.MAX)[0]

    def least(self, number: float) -> float:
        """The smallest."""
        return number if self.is_alone else self._host([number], dist.ReduceOp.MIN)[0]

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Sums over all ranks, number by number, in float64."""
        return list(numbers) if self.is_alone else self._host(numbers, dist.ReduceOp.SUM)

    def each(self, *numbers: float) -> list[list[float]]:
        """What every rank gives: a list by rank for each of the numbers."""
        if self.is_alone:
            return [[number] for number in numbers]
        mine = torch.tensor(numbers, dtype=torch.float64)
        found = [torch.empty_like(mine) for _ in range(self.world)]
        with self._waiting("agreement"):
            dist.all_gather(found, mine)
        return cast("list[list[float]]", torch.stack(found).T.tolist())  # pyright: ignore[reportUnknownMemberType]

    def tell(self, value: Any) -> Any:
        """What the first rank gives, on every rank; anything that JSON holds. The others' value is not read."""
        if self.is_alone:
            return value
        said = json.dumps(value).encode() if self.is_first else b""
        with self._waiting("the first rank"):
            size = torch.tensor([len(said)], dtype=torch.int64)
            dist.broadcast(size, 0)
            text = _bytes_tensor(said, int(size))
            dist.broadcast(text, 0)
        return json.loads(_text(text))

    def gather(self, value: Any) -> list[Any]:
        """What every rank gives, by rank, on every rank; anything that JSON holds."""
        if self.is_alone:
            return [value]
        said = json.dumps(value).encode()
        room = int(self.most(len(said)))
        padded = _bytes_tensor(said + b" " * (room - len(said)), room)
        found = [torch.empty_like(padded) for _ in range(self.world)]
        with self._waiting("every rank's word"):
            dist.all_gather(found, padded)
        return [json.loads(_text(one)) for one in found]

    def wait(self, what: str = "all ranks") -> None:
        """Return when all ranks are here."""
        if not self.is_alone:
            with self._waiting(what):
                dist.all_reduce(torch.zeros(1))

    def sum_(self, tensor: Tensor, what: str = "a sum") -> Tensor:
        """Add up a contiguous tensor over all ranks, in place; equal bits on every rank."""
        if not self.is_alone:
            with self._waiting(what):
                dist.all_reduce(tensor)
        return tensor

    def share_(self, tensors: Iterable[Tensor], what: str = "the first rank's weights") -> None:
        """Give every rank the first rank's tensors, in place."""
        if not self.is_alone:
            for tensor in tensors:
                with self._waiting(what):
                    whole = tensor.detach().contiguous()
                    dist.broadcast(whole, 0)
                if whole.data_ptr() != tensor.data_ptr():
                    tensor.detach().copy_(whole)

    def sum_all_(self, tensors: Sequence[Tensor], what: str) -> None:
        """Add up many tensors over all ranks, in place, in float32 at least, a bucket at a time."""
        if self.is_alone:
            return
        for bucket in _buckets(tensors):
            wide = torch.float64 if bucket[0].dtype == torch.float64 else torch.float32
            flat = torch.cat([tensor.reshape(-1).to(wide) for tensor in bucket])
            self.sum_(flat, what)
            at = 0
            for tensor in bucket:
                tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
                at += tensor.numel()

    def _host(self, numbers: Sequence[float], how: Any) -> list[float]:
        tensor = torch.tensor(list(numbers), dtype=torch.float64)
        with self._waiting("agreement"):
            dist.all_reduce(tensor, how)
        return cast("list[float]", tensor.tolist())  # pyright: ignore[reportUnknownMemberType]

    @contextmanager
    def _waiting(self, what: str) -> Generator[None]:
        self.pulse.beat("wait", what)
        yield
        self.pulse.beat("work", f"after {what}")


def open_store(meeting: str) -> Any:
    """A connection of one's own to the place at `tcp://HOST:PORT` where ranks have met."""
    host, port = _address(meeting)
    return cast("Any", dist).TCPStore(host, port, is_master=False, timeout=timedelta(seconds=30))


def _store(meeting: str, rank: int, world: int) -> Any:
    if not meeting.startswith("tcp://"):
        return cast("Any", dist).FileStore(meeting, world)
    host, port = _address(meeting)
    try:
        return cast("Any", dist).TCPStore(
            host, port, world, is_master=rank == 0, timeout=timedelta(seconds=JOIN_SECONDS)
        )
    except (RuntimeError, ValueError) as error:
        if "EADDRINUSE" in str(error):
            raise EnvironmentFault(
                f"port {port} of this machine is taken by another program",
                where=f"{host}:{port}",
                remedy="choose another port in compute.rdzv_endpoint, the same on every machine",
            ) from error
        raise EnvironmentFault(
            f"ranks could not meet at {host}:{port} within {JOIN_SECONDS} s: {str(error).splitlines()[0]}",
            remedy="start every machine with the same compute.rdzv_endpoint, an address of the first one "
            "(compute.node_rank=0) whose ports are open between them",
        ) from error


def _address(meeting: str) -> tuple[str, int]:
    parts = urlsplit(meeting)
    return str(parts.hostname), int(parts.port or 0)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in their order, as many at a time as a bucket holds; a larger one stands alone."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.numel() > _BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket


def _bytes_tensor(said: bytes, size: int) -> Tensor:
    return torch.frombuffer(bytearray(said or bytes(size)), dtype=torch.uint8).clone()


def _text(tensor: Tensor) -> bytes:
    return bytes(cast("Any", tensor).numpy().tobytes())
