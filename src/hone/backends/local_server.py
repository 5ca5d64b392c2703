"""What serves a trainable model on this machine: the protocol, and the server that is started where none is given."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hone.errors import EnvironmentFault
from hone.serving.packages import require_packages

_SERVING = "hone.serving"


class Server(Protocol):
    """A server that runs."""

    @property
    def base_url(self) -> str:
        """Its address; it ends with `/v1/`."""
        ...

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        ...

    def close(self) -> None:
        """End it; its port is free when this returns."""
        ...


class StartServer(Protocol):
    """Starts a server on a loopback port."""

    def __call__(
        self,
        folder: Path,
        *,
        name: str,
        base_model: str,
        base_folder: Path,
        engine_args: Mapping[str, Any],
    ) -> Server:
        """Serve the model in `folder`: each `checkpoints/000N`, those that come later too, as `name@N`, and the base
        as `base_model`, whose files lie in `base_folder`. Returns when it answers."""
        ...


class Served:
    """The server of this installation, as a process of its own."""

    def __init__(self, process: Any) -> None:
        self._process = process

    @property
    def base_url(self) -> str:
        """Its address; it ends with `/v1/`."""
        return str(self._process.base_url).rstrip("/") + "/"

    @property
    def pids(self) -> list[int]:
        """Its process."""
        return [self._process.pid] if self._process.is_running else []

    def close(self) -> None:
        """End it."""
        self._process.close()


def start_server(
    folder: Path,
    *,
    name: str,
    base_model: str,
    base_folder: Path,
    engine_args: Mapping[str, Any],
) -> Server:
    """The server of this installation. Raises EnvironmentFault where there is none."""
    del base_model, engine_args
    if importlib.util.find_spec(_SERVING) is None:
        raise EnvironmentFault(
            f"{name} cannot be served: this version of Hone trains models and has no server for them yet",
            where=str(folder),
            remedy="load the newest folder under checkpoints/ with peft, or give LocalBackend(start=...) a server of yours",
        )
    require_packages(f"serving {name}")
    serving: Any = importlib.import_module(f"{_SERVING}.child")
    log = folder / "logs" / "server.log"
    return Served(serving.ServerProcess(folder, base=str(base_folder), name=name, log=log))
