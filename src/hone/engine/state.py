"""The training state as files: trained weights, optimizer moments, random state, progress.

safetensors and JSON only, so that reading one can run no code. It knows no checkpoint folder beyond the path it
gets, and no manifest.

    weights.safetensors     trained weights by name, in their own precision (float32)
    optimizer.safetensors   <key>/<name> for each tensor that the optimizer keeps; random/cpu, random/cuda
    optimizer.json          which optimizers, and <key>/<name> for each plain number that they keep
    progress.json           step, counts, best evaluation
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from hone.engine.progress import Progress
from hone.errors import EnvironmentFault

WEIGHTS, OPTIMIZER, PROGRESS = "weights.safetensors", "optimizer.safetensors", "progress.json"
NUMBERS = "optimizer.json"
_CODE_BOOKS = {"qmap1", "qmap2"}  # of bitsandbytes: constants that its optimizers share
_SYSTEM_ERROR = re.compile(r"os error (\d+)")
_HEADER_BYTES = 1 << 20


def state_bytes(trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """About how many bytes `write_state` writes, a little more rather than less."""
    kept = _kept(trained, optimizer)
    tensors = [*trained.values(), *(value for value in kept.values() if isinstance(value, Tensor))]
    names = sum(len(name) + 128 for name in (*trained, *kept))
    return sum(t.numel() * t.element_size() for t in tensors) + names + _HEADER_BYTES


def write_state(
    folder: Path,
    *,
    trained: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write all that a resumed run needs to go on with the same bits. OSError where the disk refuses."""
    save_tensors({name: p.detach() for name, p in trained.items()}, folder / WEIGHTS)
    tensors = optimizer_tensors(trained, optimizer)
    tensors.update({f"random/{name}": state for name, state in random_state().items()})
    save_tensors(tensors, folder / OPTIMIZER)
    numbers = optimizer_numbers(trained, optimizer)
    kept = {"optimizers": _kinds(optimizer), "numbers": numbers}
    (folder / NUMBERS).write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n")
    (folder / PROGRESS).write_bytes(progress.encode())


def read_state(
    folder: Path, *, trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> Progress:
    """Fill weights, the optimizer's state and random state in place; returns the progress.

    Raises EnvironmentFault where the files belong to another model, optimizer or version.
    """
    try:
        saved = _read_numbers(folder, optimizer_numbers(trained, optimizer), optimizer)
        read_weights(folder, trained=trained)
        moments = optimizer_tensors(trained, optimizer)
        random = random_state()
        _fill({**moments, **{f"random/{n}": t for n, t in random.items()}}, folder / OPTIMIZER)
        for place, number in saved.items():
            key, _, name = place.partition("/")
            optimizer.state[trained[name]][key] = number
        set_random_state(random)
        return Progress.decode((folder / PROGRESS).read_bytes())
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise of_another_run(folder, str(error)) from error


def read_weights(folder: Path, *, trained: Mapping[str, nn.Parameter]) -> None:
    """Fill only the weights: the best checkpoint's, say. EnvironmentFault as in `read_state`."""
    try:
        _fill({name: p.detach() for name, p in trained.items()}, folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise of_another_run(folder, str(error)) from error


def write_random_state(folder: Path, *, rank: int, world: int) -> None:
    """Keep the generators of a rank beside the first one, whose own stand with its optimizer."""
    save_tensors(random_state(), folder / _random_file(rank, world))


def read_random_state(folder: Path, *, rank: int, world: int) -> None:
    """Go on with a rank's own generators, where as many ranks wrote them."""
    path = folder / _random_file(rank, world)
    if path.is_file():
        state = random_state()
        _fill(state, path)
        set_random_state(state)


def _random_file(rank: int, world: int) -> str:
    return f"random-{rank:05d}-of-{world:05d}.safetensors"


def random_state() -> dict[str, Tensor]:
    """The state of torch's generators, as uint8 tensors on the CPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def optimizer_tensors(
    trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """What the optimizer keeps of each weight, by `<key>/<name>`: the tensors themselves."""
    kept = _kept(trained, optimizer)
    return {place: value for place, value in kept.items() if isinstance(value, Tensor)}


def optimizer_numbers(
    trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, int | float]:
    """The plain numbers that it keeps of each weight, named likewise."""
    kept = _kept(trained, optimizer)
    return {place: value for place, value in kept.items() if not isinstance(value, Tensor)}


def _kept(
    trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor | int | float]:
    """All of it but constants; TypeError for what is neither a tensor nor a number."""
    found: dict[str, Tensor | int | float] = {}
    for name, parameter in trained.items():
        for key, value in cast("dict[str, object]", optimizer.state[parameter]).items():
            if not isinstance(value, Tensor | int | float):
                raise TypeError(f"{key} of {name} is a {type(value).__name__}")
            if key not in _CODE_BOOKS:
                found[f"{key}/{name}"] = value
    return found


def _kinds(optimizer: torch.optim.Optimizer) -> list[str]:
    """Package and class of each optimizer at work, e.g. `torch AdamW`."""
    parts = cast("tuple[torch.optim.Optimizer, ...]", getattr(optimizer, "parts", (optimizer,)))
    return sorted({f"{type(p).__module__.partition('.')[0]} {type(p).__name__}" for p in parts})


def _read_numbers(
    folder: Path, numbers: Mapping[str, int | float], optimizer: torch.optim.Optimizer
) -> dict[str, int | float]:
    """The saved numbers, which must be those that the optimizer keeps; ValueError where they are not."""
    saved = json.loads((folder / NUMBERS).read_bytes())
    if saved["optimizers"] != _kinds(optimizer):
        then, now = " and ".join(saved["optimizers"]), " and ".join(_kinds(optimizer))
        raise ValueError(f"it is of another optimizer ({then}, not {now})")
    found = cast("dict[str, int | float]", saved["numbers"])
    odd = sorted(found.keys() ^ numbers.keys())
    if odd:
        raise ValueError(f"{NUMBERS}: {odd[0]} is only on one side")
    return found


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; OSError where the disk refuses."""
    save = cast("Callable[[dict[str, Tensor], Path], None]", safetensors.torch.save_file)  # pyright: ignore[reportUnknownMemberType]
    try:
        save({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # a full disk reaches us only as text
        code = _SYSTEM_ERROR.search(str(error))
        number = int(code[1]) if code else errno.EIO
        reason = os.strerror(number) if code else str(error)
        raise OSError(number, reason, str(path)) from error


def _fill(into: Mapping[str, Tensor], path: Path) -> None:
    """Copy every tensor of a file into the tensor of the same name; both must name the same ones."""
    opened: Any = safetensors.safe_open(path, framework="pt", device="cpu")
    with opened as file:
        names = cast("set[str]", set(file.keys()))
        if names != set(into):
            odd = sorted(names ^ set(into))[0]
            raise ValueError(f"{path.name}: {odd} is only on one side")
        for name, tensor in into.items():
            saved: Tensor = file.get_tensor(name)
            if saved.shape != tensor.shape or saved.dtype != tensor.dtype:
                raise ValueError(f"{path.name}: {name} has another shape or type")
            tensor.copy_(saved)


def of_another_run(folder: Path, why: str) -> EnvironmentFault:
    """The error for a state that does not fit."""
    return EnvironmentFault(
        f"the checkpoint does not fit this model, optimizer and version: {why}",
        where=str(folder),
        remedy="use the model, train.optimizer and version that the run began with, or start over "
        "with --fresh",
    )
