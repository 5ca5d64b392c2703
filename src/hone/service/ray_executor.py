"""A Ray cluster as one who runs jobs: each by an actor, wherever the cluster has room for it. It knows no store.

The actor starts the same process as `ThisMachine` does, on its own machine. Ray ends the actor when the worker that asked
for it dies; then the process's lifeline ends, and so does the process. The service's folder must lie where all machines
see it, and Hone be installed on all of them. Ray's own traffic is not encrypted: its network must be a trusted one.
"""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path
from typing import Any, Final

from hone.errors import EnvironmentFault
from hone.service.executor import LocalProcess, Running, end_processes_of

_ANSWER_SECONDS: Final = 60.0
_ROOM_SECONDS: Final = 600.0
_QUIET: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class RayMachines:
    """Runs jobs on the cluster at `address` (None: that of RAY_ADDRESS, else one of this machine's own)."""

    def __init__(self, address: str | None = None, *, on_gpu: bool, cpus: float = 1) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise EnvironmentFault(
                f"jobs on a Ray cluster need the package ray, which does not load ({error})",
                remedy="pip install 'hone[distributed]'",
            ) from error
        self._room = {"num_cpus": cpus, "num_gpus": 1 if on_gpu else 0}
        address = address or os.environ.get("RAY_ADDRESS")
        own = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            self._ray.init(
                address=address or "local", log_to_driver=False, logging_level="ERROR", **own
            )
        except Exception as error:  # of any kind
            raise EnvironmentFault(
                f"no Ray cluster: {(str(error).splitlines() or [''])[0]}",
                remedy="give the address of a running one, or none to start one here",
            ) from error

    def start(self, folder: Path) -> Running:
        """As `Executor.start`; waits until the cluster has room."""
        host = self._ray.remote(JobHost).options(max_restarts=0, **self._room).remote()
        running = RayProcess(self._ray, host)
        try:
            self._ray.get(host.start.remote(str(folder)), timeout=_ROOM_SECONDS)
        except self._ray.exceptions.GetTimeoutError as error:
            running.kill()
            raise EnvironmentFault(
                f"the Ray cluster had no room for the job within {_ROOM_SECONDS:.0f} seconds",
                remedy="add machines to it, or start fewer workers",
            ) from error
        return running

    def end_former(self, folder: Path) -> None:
        """As `Executor.end_former`, on this machine; on others Ray has ended the actor that held it."""
        end_processes_of(folder)

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


class JobHost:
    """Holds a job's process where Ray has placed it."""

    def __init__(self) -> None:
        self._process: LocalProcess | None = None

    def start(self, folder: str) -> None:
        """Start the process of the job in `folder`, on the devices that Ray gave."""
        if not Path(folder).is_dir():
            raise EnvironmentFault(
                f"{folder} is not to be seen on this machine",
                remedy="keep the service's folder where all machines of the cluster see it",
            )
        self._process = LocalProcess(Path(folder), {})

    def poll(self) -> int | None:
        """As `Running.poll`."""
        assert self._process is not None
        return self._process.poll()

    def stop(self) -> None:
        """As `Running.stop`."""
        assert self._process is not None
        self._process.stop()

    def kill(self) -> None:
        """As `Running.kill`."""
        if self._process is not None:
            self._process.kill()


class RayProcess:
    """The process of one job somewhere on the cluster."""

    def __init__(self, ray: Any, host: Any) -> None:
        self._ray = ray
        self._host = host
        self._code: int | None = None

    def poll(self) -> int | None:
        """As `Running.poll`. A host that died has taken its process with it."""
        if self._code is None:
            try:
                self._code = self._ask("poll")
            except self._ray.exceptions.RayError:
                self._code = -signal.SIGKILL
        return self._code

    def stop(self) -> None:
        """As `Running.stop`."""
        try:
            self._ask("stop")
        except self._ray.exceptions.RayError:
            return  # it is gone, which `poll` tells

    def kill(self) -> None:
        """As `Running.kill`."""
        try:
            self._ask("kill")
        except self._ray.exceptions.RayError:
            pass  # it is gone
        finally:
            self._ray.kill(self._host)
        if self._code is None:
            self._code = -signal.SIGKILL

    def _ask(self, what: str) -> Any:
        return self._ray.get(getattr(self._host, what).remote(), timeout=_ANSWER_SECONDS)
