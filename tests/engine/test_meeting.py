"""Where ranks meet: a port that is taken, addresses of either kind, and no proxy in between."""

from __future__ import annotations

import socket
import threading

import pytest

from hone.engine.ranks import _store as meet  # pyright: ignore[reportPrivateUsage]
from hone.engine.ranks import open_store
from hone.errors import EnvironmentFault


def free_port(family: socket.AddressFamily, host: str) -> int:
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@pytest.mark.fault(16)
def test_a_port_that_is_taken_is_told_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            EnvironmentFault, match=f"port {port} of this machine is taken"
        ) as caught:
            meet(f"tcp://127.0.0.1:{port}", 0, 2)
    assert "compute.rdzv_endpoint" in str(caught.value.remedy)


@pytest.mark.fault(16)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_ranks_meet_at_addresses_of_either_kind_whatever_proxy_is_set(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        port = free_port(family, host)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    written = f"[{host}]" if ":" in host else host
    stores: list[object] = []
    first = threading.Thread(target=lambda: stores.append(meet(f"tcp://{written}:{port}", 0, 2)))
    first.start()
    second = meet(f"tcp://{written}:{port}", 1, 2)
    first.join(timeout=30)
    assert stores
    second.set("said", "yes")
    assert open_store(f"tcp://{written}:{port}").get("said") == b"yes"
