"""The outbox: every file under its name, or none; nothing replaced unasked, and never an input."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hone.data.outbox import Outbox
from hone.errors import ConfigError, DiskError


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def test_lines_and_lists(tmp_path: Path) -> None:
    with Outbox(inputs=[], force=False) as outbox:
        lines, listed = outbox.rows(tmp_path / "a.jsonl"), outbox.rows(tmp_path / "new/b.json")
        empty = outbox.rows(tmp_path / "c.json")
        for row in ({"a": "é\u2028"}, {"b": 1}):
            lines.add_json(row)
            listed.add_json(row)
        outbox.put_json(tmp_path / "about.json", {"rows": lines.count})
        assert not list(tmp_path.glob("*.jsonl"))
    assert (tmp_path / "a.jsonl").read_bytes() == '{"a": "é\u2028"}\n{"b": 1}\n'.encode()
    assert json.loads((tmp_path / "new/b.json").read_text()) == [{"a": "é\u2028"}, {"b": 1}]
    assert json.loads((tmp_path / "c.json").read_text()) == []
    assert empty.count == 0
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_interrupted_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "old.jsonl").write_text("old\n")

    def interrupted() -> None:
        with Outbox(inputs=[], force=True) as outbox:
            outbox.rows(tmp_path / "deep/er/a.jsonl").add(b"{}")
            outbox.rows(tmp_path / "old.jsonl").add(b"{}")
            raise error

    with pytest.raises(error):
        interrupted()
    assert [p.name for p in tmp_path.rglob("*")] == ["old.jsonl"]
    assert (tmp_path / "old.jsonl").read_text() == "old\n"


def test_a_rename_that_fails_undoes_the_others(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.jsonl").write_text("old\n")
    rename, done = Path.rename, []

    def third_fails(self: Path, target: Path) -> Path:
        if self.suffix == ".part" and ".before." not in self.name:
            done.append(target)
            if len(done) == 3:
                raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", third_fails)

    def three() -> None:
        with Outbox(inputs=[], force=True) as outbox:
            for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
                outbox.rows(tmp_path / name).add(b"new")

    with pytest.raises(DiskError, match="No space"):
        three()
    assert tree(tmp_path) == {"a.jsonl": b"old\n"}


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old\n")
    with (
        pytest.raises(ConfigError, match="exists already"),
        Outbox(inputs=[], force=False) as outbox,
    ):
        outbox.rows(path)
    with Outbox(inputs=[], force=True) as outbox:
        outbox.rows(path).add(b"new")
    assert tree(tmp_path) == {"a.jsonl": b"new\n"}


def test_what_came_into_being_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def slow() -> None:
        with Outbox(inputs=[], force=False) as outbox:
            outbox.rows(path).add(b"new")
            path.write_text("theirs\n")

    with pytest.raises(ConfigError, match="exists already"):
        slow()
    assert tree(tmp_path) == {"a.jsonl": b"theirs\n"}


@pytest.mark.parametrize("link", [os.link, os.symlink, None])
def test_never_in_place(tmp_path: Path, link) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("old\n")
    target = source
    if link is not None:
        target = tmp_path / "other.jsonl"
        link(source, target)
    with (
        pytest.raises(ConfigError, match="in place"),
        Outbox(inputs=[source], force=True) as outbox,
    ):
        outbox.rows(target)
    assert source.read_text() == "old\n"


def test_places_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, said in (
        ("folder.jsonl", "no file"),
        ("pipe.jsonl", "no file"),
        ("rows.txt", "jsonl"),
    ):
        with pytest.raises(ConfigError, match=said), Outbox(inputs=[], force=True) as outbox:
            outbox.rows(tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot write"), Outbox(inputs=[], force=True) as outbox:
        outbox.rows(tmp_path / "file" / "a.jsonl")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    dead = tmp_path / ".a[1].jsonl.999999999.part"
    alive = tmp_path / f".a[1].jsonl.{os.getppid()}.part"
    dead.write_text("half")
    alive.write_text("half")
    with Outbox(inputs=[], force=False) as outbox:
        outbox.rows(tmp_path / "a[1].jsonl").add(b"{}")
    assert set(tree(tmp_path)) == {"a[1].jsonl", alive.name}
