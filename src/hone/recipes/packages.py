"""The packages that are installed, against the ranges that this version supports. Read from metadata; nothing is
imported."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version


@dataclass(frozen=True)
class Package:
    """A package that we ask for, and what is here of it."""

    name: str
    wanted: str
    """The range, as pip writes it; empty for any."""
    found: str | None
    extra: str | None
    """The extra that asks for it; None for what every installation needs."""

    @property
    def fits(self) -> bool:
        """Whether it is here in a version of the range."""
        if self.found is None:
            return False
        try:
            return Requirement(f"{self.name}{self.wanted}").specifier.contains(
                Version(self.found), prereleases=True
            )
        except InvalidVersion:
            return False


def installed(name: str) -> str | None:
    """The version of a package; None where it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def packages(leave_out: frozenset[str] = frozenset({"dev", "bench"})) -> list[Package]:
    """What the metadata of `hone` asks for, each package once, the needed ones first; empty where this is no
    installed package. Extras in `leave_out` are not looked at."""
    try:
        lines = requires("hone") or []
    except PackageNotFoundError:
        return []
    found: dict[str, Package] = {}
    for line in lines:
        asked = Requirement(line)
        extra = _extra_of(asked)
        if extra in leave_out or not _applies(asked, extra) or asked.name in found:
            continue
        found[asked.name] = Package(asked.name, str(asked.specifier), installed(asked.name), extra)
    return sorted(found.values(), key=lambda one: (one.extra is not None, one.name))


def _extra_of(asked: Requirement) -> str | None:
    """The extra that a requirement belongs to: the one without which its marker is false."""
    marker = str(asked.marker or "")
    if "extra ==" not in marker:
        return None
    return marker.rpartition("extra ==")[2].split()[0].strip("\"'()")


def _applies(asked: Requirement, extra: str | None) -> bool:
    """Whether a requirement is meant for this system at all."""
    return asked.marker is None or asked.marker.evaluate({"extra": extra or ""})
