"""`doctor`: what of this machine and this installation helps or hinders a training, line by line. It changes nothing.

No torch: versions are read from metadata, cards from nvidia-smi. It never says a token's value.
"""

from __future__ import annotations

import locale
import os
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from hone import __version__
from hone.engine import machine, nvidia
from hone.errors import ConfigError, nearest
from hone.recipes.cache import cache_folder, look
from hone.recipes.packages import Package, installed, packages

State = Literal["ok", "warning", "problem"]

_OLDEST_PYTHON: Final = (3, 11)
_LITTLE_MEMORY: Final = 4 * 2**30
_LITTLE_DISK: Final = 10 * 2**30
_FULL_DISK: Final = 2**30
_LARGE_CACHE: Final = 50 * 2**30
_HOLDERS: Final = 3
_LARGE_HOLDER: Final = 2**29
_GIB: Final = 2**30


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it stands, and what to do where it does not stand well."""

    topic: str
    name: str
    state: State
    says: str
    remedy: str | None = None


@dataclass(frozen=True)
class Examination:
    """All lines."""

    checks: tuple[Check, ...]

    @property
    def worst(self) -> State:
        """The worst state of any line."""
        states = {check.state for check in self.checks}
        return "problem" if "problem" in states else "warning" if "warning" in states else "ok"

    def to_json(self) -> dict[str, Any]:
        """For a script."""
        return {"state": self.worst, "checks": [asdict(check) for check in self.checks]}


def examine(
    topics: tuple[str, ...] = (),
    *,
    output: Path = Path("runs"),
    environment: Mapping[str, str] | None = None,
    ask: Callable[[], nvidia.Answer] = nvidia.ask,
) -> Examination:
    """Look at everything, or at these topics. `output` is where runs will lie.

    Raises ConfigError for a topic that does not exist.
    """
    said = os.environ if environment is None else environment
    looks: dict[str, Callable[[], list[Check]]] = {
        "python": _python,
        "packages": _packages,
        "processor": lambda: _processor(said),
        "memory": _memory,
        "gpu": lambda: _gpu(ask()),
        "disk": lambda: _disk(output),
        "hub": lambda: _hub(said),
        "terminal": lambda: _terminal(said),
    }
    for topic in topics:
        if topic not in looks:
            raise ConfigError(f"no such topic: {topic!r}", remedy=nearest(topic, looks))
    wanted = topics or tuple(looks)
    return Examination(
        tuple(check for topic in looks if topic in wanted for check in looks[topic]())
    )


def _python() -> list[Check]:
    says = (
        f"Python {platform.python_version()}, Hone {__version__}, {platform.platform(terse=True)}"
    )
    if sys.version_info < _OLDEST_PYTHON:
        return [Check("python", "Python", "problem", says, "use Python 3.11 or newer")]
    if sys.platform != "linux":
        return [Check("python", "Python", "warning", says, "training is tried on Linux only")]
    return [Check("python", "Python", "ok", says)]


def _packages() -> list[Check]:
    known = packages()
    if not known:
        remedy = "install it: pip install -e . in its folder"
        says = "hone is not installed as a package: versions cannot be compared"
        return [Check("packages", "packages", "warning", says, remedy)]
    checks: list[Check] = []
    good = [one for one in known if one.fits]
    for one in known:
        if one.fits or (one.extra is not None and one.found is None):
            continue
        checks.append(_misfit(one))
    named = ", ".join(f"{one.name} {one.found}" for one in good if one.name in _NAMED)
    says = f"{len(good)} as needed: {named}"
    absent = sorted({one.extra for one in known if one.extra is not None and one.found is None})
    if absent:
        says += f"; not installed, not needed: {', '.join(f'hone[{extra}]' for extra in absent)}"
    return [Check("packages", "packages", "ok", says), *checks, *_companions()]


_NAMED: Final = ("torch", "transformers", "peft", "tokenizers", "safetensors")


def _misfit(one: Package) -> Check:
    if one.found is None:
        says = f"{one.name} is missing ({one.name}{one.wanted} is needed)"
    else:
        says = f"{one.name} {one.found} is outside of {one.wanted}"
    state: State = "problem" if one.extra is None else "warning"
    return Check("packages", one.name, state, says, f"pip install '{one.name}{one.wanted}'")


def _companions() -> list[Check]:
    """torchvision and torchaudio of another build than torch break the import of transformers."""
    torch = installed("torch")
    if torch is None:
        return []
    build = torch.partition("+")[2]
    checks: list[Check] = []
    for name in ("torchvision", "torchaudio"):
        found = installed(name)
        if found is not None and found.partition("+")[2] != build:
            says = f"{name} {found} is of another build than torch {torch}; it is not needed here"
            checks.append(Check("packages", name, "problem", says, f"pip uninstall {name}"))
    return checks


def _processor(environment: Mapping[str, str]) -> list[Check]:
    name, flags = machine.processor()
    cores, quota = machine.allowed_cores(), machine.group_cores()
    says = f"{name}: {cores} cores allowed"
    if quota is not None:
        says += f", {quota:g} cores' time by the control group"
    says += f"; {', '.join(flags) if flags else 'none of the vector instructions that matter'}"
    if not {"avx512_bf16", "amx_bf16", "sve"} & set(flags):
        says += "; bf16 has no instructions of its own here"
    checks = [Check("processor", "processor", "ok", says)]
    threads = environment.get("OMP_NUM_THREADS", "")
    if threads and not (threads.isdigit() and int(threads) > 0):
        says = f"OMP_NUM_THREADS={threads!r} is no number"
        checks.append(Check("processor", "threads", "warning", says, "unset OMP_NUM_THREADS"))
    elif threads and int(threads) < cores:
        says = f"OMP_NUM_THREADS={threads}: a step uses {threads} of {cores} cores"
        remedy = "unset it, or set compute.threads"
        checks.append(Check("processor", "threads", "warning", says, remedy))
    if quota is not None and machine.default_threads() > quota + 0.5:
        says = f"{machine.default_threads()} threads would share the time of {quota:g} cores"
        remedy = f"set compute.threads={max(1, int(quota))}"
        checks.append(Check("processor", "quota", "warning", says, remedy))
    return checks


def _memory() -> list[Check]:
    free, whole, limit = (
        machine.available_bytes(),
        machine.memory_bytes(),
        machine.group_limit_bytes(),
    )
    says = f"{free / _GIB:.1f} of {whole / _GIB:.1f} GiB free"
    if limit is not None:
        says += f" (the control group allows {limit / _GIB:.1f} GiB)"
    holders = _holders()
    if holders:
        held = ", ".join(f"{name} (pid {pid}) {size / _GIB:.1f} GiB" for size, pid, name in holders)
        says += f"; most is held by {held}"
    little = free < min(_LITTLE_MEMORY, whole // 4)
    remedy = "end what you do not need, or use a smaller model" if little else None
    checks = [Check("memory", "memory", "warning" if little else "ok", says, remedy)]
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        says = f"this shell allows a process {most / _GIB:.1f} GiB of addresses (ulimit -v)"
        checks.append(Check("memory", "addresses", "warning", says, "type: ulimit -v unlimited"))
    return checks


def _holders() -> list[tuple[int, int, str]]:
    """(bytes, pid, name) of the processes that hold most, as far as this user may see them."""
    found: list[tuple[int, int, str]] = []
    for folder in Path("/proc").glob("[0-9]*"):
        size = machine.resident_bytes(folder.name)
        if size >= _LARGE_HOLDER:
            try:
                name = (folder / "comm").read_text().strip()
            except OSError:
                continue
            found.append((size, int(folder.name), name))
    return sorted(found, reverse=True)[:_HOLDERS]


def _gpu(answer: nvidia.Answer) -> list[Check]:
    if answer.trouble is not None:
        remedy = "look at the driver: `nvidia-smi` must list the cards"
        return [Check("gpu", "driver", "problem", answer.trouble, remedy)]
    if not answer.cards:
        says = "none: nvidia-smi is not here" if not answer.has_tool else "nvidia-smi lists no card"
        return [Check("gpu", "GPU", "ok", f"{says}; training runs on the CPU")]
    checks = [Check("gpu", "driver", "ok", f"NVIDIA driver {answer.cards[0].driver}")]
    for card in answer.cards:
        busy = "" if card.busy is None else f", {card.busy}% busy"
        says = f"{card.name}: {card.used_mib:,} of {card.total_mib:,} MiB used{busy}"
        named = ", ".join(_holder(one) for one in card.holders)
        says += f"; held by {named}" if named else ""
        taken = card.used_mib > card.total_mib // 10
        remedy = None
        if taken:
            pids = " ".join(str(one.pid) for one in card.holders)
            remedy = f"if it is yours and of no use: kill {pids}" if pids else "choose another card"
        state: State = "warning" if taken else "ok"
        checks.append(Check("gpu", f"card {card.index}", state, says, remedy))
    if "cpu" in (installed("torch") or "").partition("+")[2]:
        says = f"torch {installed('torch')} is a build for CPUs: it cannot use these cards"
        checks.append(
            Check("gpu", "torch", "problem", says, "install the CUDA build: see pytorch.org")
        )
    return checks


def _holder(one: nvidia.Holder) -> str:
    size = "" if one.used_mib is None else f", {one.used_mib:,} MiB"
    return f"{one.name} (pid {one.pid}{size})"


def _disk(output: Path) -> list[Check]:
    cache = cache_folder()
    checks = [_folder("cache", cache, "HONE_CACHE names another folder")]
    if checks[0].state != "problem" and cache.is_dir():
        size = look(cache).num_bytes
        says = f"{size / _GIB:.1f} GiB that can be made again, in {cache}"
        large = size > _LARGE_CACHE
        remedy = "type: hone cache prune --max-size 20GB" if large else None
        checks.append(Check("disk", "cache size", "warning" if large else "ok", says, remedy))
    checks.append(_folder("runs", output, "--output names another folder"))
    return checks


def _folder(name: str, folder: Path, elsewhere: str) -> Check:
    """Whether files can be written there, and how many bytes."""
    there = next((one for one in (folder, *folder.absolute().parents) if one.exists()), Path("/"))
    if not there.is_dir():
        return Check("disk", name, "problem", f"{there} is a file", elsewhere)
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".hone-doctor-") as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(there).free
    except OSError as error:
        says = f"cannot write in {folder}: {error.strerror or error}"
        return Check("disk", name, "problem", says, elsewhere)
    says = f"{free / _GIB:.1f} GiB free for {folder}"
    if free < _FULL_DISK:
        return Check("disk", name, "problem", says, f"free some space; {elsewhere}")
    if free < _LITTLE_DISK:
        return Check("disk", name, "warning", says, f"free some space; {elsewhere}")
    return Check("disk", name, "ok", says)


def _hub(environment: Mapping[str, str]) -> list[Check]:
    if environment.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        says = "HF_HUB_OFFLINE is set: only models and datasets that are here"
        return [Check("hub", "hub", "ok", says)]
    token = environment.get("HF_TOKEN")
    if token:
        if token != token.strip() or not token.isascii():
            says = "HF_TOKEN has spaces or foreign letters in it"
            return [Check("hub", "HF_TOKEN", "warning", says, "copy the token again")]
        return [Check("hub", "HF_TOKEN", "ok", "set (its value is not shown)")]
    return [Check("hub", "HF_TOKEN", "ok", "not set: gated models and datasets need it")]


def _terminal(environment: Mapping[str, str]) -> list[Check]:
    encoding = sys.stdout.encoding or "ascii"
    files = locale.getpreferredencoding(do_setlocale=False)
    said = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or ""
    says = f"writes {encoding}, locale {said or 'not set'}"
    if {one.lower().replace("-", "") for one in (encoding, files)} != {"utf8"}:
        says += f", files {files}: text beyond it is shown as escapes"
        return [Check("terminal", "locale", "warning", says, "type: export LC_ALL=C.UTF-8")]
    return [Check("terminal", "locale", "ok", says)]
