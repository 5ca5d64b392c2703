"""Where a service is and which key opens it, and what is said where that is not clear."""

from __future__ import annotations

import pytest

from hone import ServerlessBackend
from hone.backends.service_address import DEFAULT_URL, find_service
from hone.errors import ConfigError, EnvironmentFault


def test_the_environment_is_asked_last() -> None:
    here = {"HONE_BASE_URL": "https://gpu.example/v1/", "HONE_API_KEY": "k1"}
    assert find_service(None, None, {"HONE_API_KEY": "k"}).url == DEFAULT_URL
    found = find_service(None, None, here)
    assert (found.url, found.key) == ("https://gpu.example/v1", "k1")
    said = find_service("http://[::1]:8000", "k2", here)
    assert (said.url, said.key) == ("http://[::1]:8000/v1", "k2")
    assert find_service("https://x/openai/v1", "k", {}).url == "https://x/openai/v1"


def test_a_key_is_never_shown() -> None:
    assert "hunter2" not in repr(find_service(None, "hunter2", {}))


@pytest.mark.parametrize(
    ("url", "is_open"),
    [
        ("http://127.0.0.1:1/v1", False), ("http://localhost/v1", False), ("http://[::1]/v1", False),
        ("http://10.0.0.1/v1", True), ("https://10.0.0.1/v1", False), ("http://localhost.evil/v1", True),
    ],
)  # fmt: skip
def test_a_key_that_would_travel_in_the_open_is_known(url: str, is_open: bool) -> None:
    assert find_service(url, "k", {}).is_open == is_open


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "x", "http://", "http://user:pw@x/v1", "http://x/v1?key=1", "http://x y", "http://x:port", "http://[::1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        find_service(url, "k", {})


@pytest.mark.parametrize("key", ["a b", "a\nb", "ключ"])
def test_what_no_key_has_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="characters"):
        find_service(None, key, {})


def test_no_key_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HONE_API_KEY", "HONE_BASE_URL", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EnvironmentFault, match="hone service keys create"):
        ServerlessBackend()
    monkeypatch.setenv("WANDB_API_KEY", "secret-w")
    with pytest.raises(EnvironmentFault, match="--framework art") as told:
        ServerlessBackend()
    assert "secret-w" not in str(told.value)
