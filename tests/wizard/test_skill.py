"""The skill for assistants: written, kept up to date, never over somebody's own words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hone.cli.main import VERBS
from hone.errors import ConfigError
from hone.wizard import skill

BOTH = ("claude", "agents")
CLAUDE = Path(".claude/skills/train-sft/SKILL.md")
AGENTS = Path(".agents/skills/train-sft/SKILL.md")


def fates(folder: Path, *, force: bool = False) -> list[str]:
    return [one.fate for one in skill.install(folder, BOTH, force=force)]


def test_it_is_written_for_both_and_then_unchanged(tmp_path: Path) -> None:
    assert fates(tmp_path) == ["written", "written"]
    assert (tmp_path / CLAUDE).read_bytes() == (tmp_path / AGENTS).read_bytes()
    assert fates(tmp_path) == ["unchanged", "unchanged"]


def test_changed_words_are_not_replaced_and_then_nothing_is_written(tmp_path: Path) -> None:
    mine = tmp_path / AGENTS
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ConfigError, match="not as Hone wrote them"):
        fates(tmp_path)
    assert mine.read_text() == "mine"
    assert not (tmp_path / ".claude").exists()
    assert fates(tmp_path, force=True) == ["written", "replaced"]
    assert mine.read_text() != "mine"


def test_words_of_an_older_hone_are_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skill, "_contents", lambda: {"SKILL.md": b"older"})
    fates(tmp_path)
    monkeypatch.undo()
    (tmp_path / AGENTS).write_text("older, and mine")
    with pytest.raises(ConfigError, match="agents"):
        fates(tmp_path)
    (tmp_path / AGENTS).unlink()
    assert fates(tmp_path) == ["updated", "written"]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / CLAUDE).parent.mkdir(parents=True)
    (tmp_path / CLAUDE).symlink_to(precious)
    with pytest.raises(ConfigError):
        fates(tmp_path)
    assert fates(tmp_path, force=True)[0] == "replaced"
    assert precious.read_text() == "precious"


def test_it_names_commands_that_exist(tmp_path: Path) -> None:
    fates(tmp_path)
    text = (tmp_path / CLAUDE).read_text(encoding="utf-8")
    assert re.match(r"---\nname: train-sft\ndescription: .+\n---\n", text)
    named = set(re.findall(r"`hone (\w+)", text))
    assert named
    assert named <= {verb.name for verb in VERBS}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        skill.install(tmp_path / "no", BOTH, force=False)
