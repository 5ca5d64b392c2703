"""What nvidia-smi says, by what a made-up one prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.engine import nvidia
from hone.engine.cards import CARDS, card_called, read_cards
from hone.errors import ConfigError

CARD = "0, GPU-1, NVIDIA H100 80GB HBM3, 81559, 40000, 41559, 98, 550.54\n"
SECOND = "1, GPU-2, NVIDIA H100 80GB HBM3, 81559, 1, 81558, [N/A], 550.54\n"
HOLDERS = 'GPU-1, 4242, "/usr/bin/python3, -m other", 39000\nGPU-1, 77, [Not Found], [N/A]\n'


def fake_tool(folder: Path, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def answering(cards: str, holders: str = "") -> str:
    """A tool that answers both queries."""
    return (
        f"case \"$1\" in *query-gpu*) printf '%s' '{cards}';; "
        f"*query-compute-apps*) printf '%s' '{holders}';; *) exit 9;; esac"
    )


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_cards_and_who_holds_their_memory(path: Path) -> None:
    fake_tool(path, answering(CARD + SECOND, HOLDERS))
    answer = nvidia.ask()
    assert answer.trouble is None
    first, second = answer.cards
    assert (first.name, first.total_mib, first.free_mib, first.busy) == (
        "NVIDIA H100 80GB HBM3",
        81559,
        41559,
        98,
    )
    assert [(one.pid, one.name, one.used_mib) for one in first.holders] == [
        (4242, "/usr/bin/python3, -m other", 39000),
        (77, "[Not Found]", None),
    ]
    assert second.busy is None
    assert second.holders == ()


def test_no_tool_is_no_trouble(path: Path) -> None:
    assert nvidia.ask() == nvidia.Answer((), None, has_tool=False)


def test_a_driver_that_does_not_answer_is_named(path: Path) -> None:
    fake_tool(path, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    answer = nvidia.ask()
    assert answer.cards == ()
    assert answer.trouble == "Failed to initialize NVML: Driver/library version mismatch"


def test_a_tool_that_hangs_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "_SECONDS", 0.2)
    fake_tool(path, "while :; do :; done")
    assert "did not answer" in str(nvidia.ask().trouble)


def test_an_answer_of_another_form_is_trouble_and_no_crash(path: Path) -> None:
    fake_tool(path, answering("0, GPU-1, only three\n"))
    assert "not understood" in str(nvidia.ask().trouble)


def test_cards_are_read_with_their_count() -> None:
    card, count = read_cards("H100:8")
    assert (card.name, count) == ("h100", 8)
    assert read_cards("a100")[0].name == "a100-80"
    assert card_called("nvidia h100 80gb hbm3") is card
    assert len({one.name for one in CARDS}) == len(CARDS)


@pytest.mark.parametrize("text", ["h10", "h100:0", "h100:", "h100:x", "h100:99999", "", "h100 8"])
def test_a_card_that_is_not_known_is_refused_with_the_nearest(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_cards(text)
    assert refused.value.remedy
