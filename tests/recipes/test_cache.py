"""What lies in the cache is listed; what is old goes, what is in use stays, what is not ours is never touched."""

from __future__ import annotations

import json
import os
import time

import pytest

from hone.cli.main import run
from hone.config.sections import DataSection
from hone.data.hold import Hold
from hone.data.prepare import prepare
from hone.errors import ConfigError, DiskError
from hone.recipes.cache import look, prune, read_duration, read_size
from tests.data.small import family

DAY = 86400
KEY = "0123456789abcdef" * 4
DEAD = 4194304  # above every process id


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("HONE_CACHE", str(folder))
    return folder


def entry(cache, kind, name, *, size=100, days=0.0):
    path = cache / kind / name
    path.mkdir(parents=True)
    (path / "x").write_bytes(b"x" * size)
    aged(path, days)
    return path


def aged(path, days):
    then = time.time() - days * DAY
    for one in (*path.glob("*"), path):
        os.utime(one, (then, then))


def key(number):
    return f"{number:064x}"


def said(capsys, *words):
    code = run([*map(str, words)])
    return code, capsys.readouterr().out


def test_an_absent_cache_holds_nothing(cache, capsys):
    assert look(cache).entries == ()
    assert said(capsys, "cache", "prune", "--max-size", "1B")[0] == 0
    assert said(capsys, "cache")[0] == 0
    assert not cache.exists()


def test_prepared_rows_are_named_by_their_file(cache, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    tokenizer, template = family("byte-level")
    prepared = prepare(
        DataSection(path=str(path)),
        tokenizer=tokenizer,
        template=template,
        max_length=100,
        cache_dir=cache / "data",
        say=lambda event, told: None,
    )
    (one,) = look(cache).entries
    assert (one.kind, one.in_use, one.says) == ("data", True, str(path))
    assert not prune(cache, everything=True).removed
    assert said(capsys, "cache", "clear")[1].endswith("1 that would have gone stayed: in use\n")
    prepared.close()
    code, out = said(capsys, "cache", "list", "--json")
    told = json.loads(out)
    assert (code, told["bytes"], told["entries"][0]["in_use"]) == (0, one.num_bytes, False)
    assert f"{path}\n" in said(capsys, "cache")[1]
    assert prune(cache, everything=True).removed[0].name == one.name
    assert list((cache / "data").iterdir()) == []


def test_the_oldest_go_first_and_only_as_many_as_must(cache):
    paths = [entry(cache, "data", key(n), days=n) for n in range(4)]
    hold = Hold(paths[3])
    aged(paths[3], 3)
    dry = prune(cache, max_bytes=250, dry_run=True)
    assert [one.path for one in dry.removed] == [paths[2], paths[1]]
    assert all(path.exists() for path in paths)
    done = prune(cache, max_bytes=250)
    assert done.removed == dry.removed
    assert [one.path for one in done.spared] == [paths[3]]
    assert [path.exists() for path in paths] == [True, False, False, True]
    hold.release()
    assert [one.path for one in prune(cache, max_bytes=100).removed] == [paths[3]]


def test_age_is_that_of_the_last_use(cache):
    old, young, used = (entry(cache, "imports", key(n), days=40) for n in range(3))
    aged(young, 20)
    Hold(used).release()
    assert [one.path for one in prune(cache, older_than=30 * DAY).removed] == [old]
    assert young.exists()
    assert used.exists()


def test_every_kind_is_known_and_nothing_else_is_touched(cache, tmp_path):
    entry(cache, "data", KEY)
    entry(cache, "imports", KEY)
    entry(cache, "base", "town-1m-0123456789abcdef")
    (cache / "encoders").mkdir()
    (cache / "encoders" / f"{KEY[:32]}-0.22-0.12-15.json").write_text("{}")
    mine = [
        entry(cache, "data", "my thesis"),
        entry(cache, "imports", "hub"),
        entry(cache, "base", "llama"),
        entry(cache, "photos", KEY),
    ]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("mine")
    (cache / "data" / key(7)).symlink_to(outside)
    (cache / "data" / "notes.part").write_text("mine")
    assert sorted(one.kind for one in look(cache).entries) == [
        "base",
        "data",
        "encoders",
        "imports",
    ]
    assert len(prune(cache, everything=True).removed) == 4
    assert all((path / "x").exists() for path in mine)
    assert (outside / "x").read_text() == "mine"
    assert (cache / "data" / key(7)).is_symlink()
    assert (cache / "data" / "notes.part").exists()


def test_what_killed_writers_left_goes_and_what_living_ones_write_stays(cache):
    folder = entry(cache, "data", KEY)
    left = [
        folder / f".{key(1)[:32]}.{DEAD}.part",
        folder / f"..index.{DEAD}.part",
        cache / "data" / f".{key(2)}.{DEAD}.gone.part",
        cache / "imports" / f".{key(1)}.{DEAD}.0011aaff.part",
    ]
    living = [
        folder / f".{key(1)[:32]}.{os.getpid()}.part",
        cache / "imports" / f".{key(1)}.{os.getpid()}.0011aaff.part",
        cache / "encoders" / ".proof.json.139872345678901.part",
    ]
    for path in (*left, *living):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    assert set(look(cache).leftovers) == set(left)
    prune(cache)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in living)
    os.utime(living[2], (1, 1))
    prune(cache)
    assert not living[2].exists()
    assert (folder / "x").exists()


def test_the_command_line(cache, capsys):
    entry(cache, "data", KEY, days=40)
    code, out = said(capsys, "cache", "prune", "--older-than", "30d", "--dry-run", "--json")
    told = json.loads(out)
    assert (code, told["dry_run"], [one["name"] for one in told["removed"]]) == (
        0,
        True,
        [f"data/{KEY}"],
    )
    assert "removed 1 (100 B)" in said(capsys, "cache", "prune", "--older-than", "30d")[1]
    assert run(["cache", "prune", "--older-than", "soon"]) == 2
    assert run(["cache", "prune", "--max-size", "20"]) == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("12h", 43200), ("1.5d", 129600), ("2 W", 1209600)]
)
def test_durations(text, seconds):
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("1b", 1), ("20GB", 2 * 10**10), ("1.5 GiB", 3 * 2**29), ("0MB", 0)]
)
def test_sizes(text, count):
    assert read_size(text) == count


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1e3d", "1 day", "nand", "1d2h", "٣d"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ConfigError, match="not a number with a unit"):
        read_duration(text)
    with pytest.raises(ConfigError):
        read_size(text)


def test_a_folder_that_may_not_be_read_is_told_of(cache, monkeypatch):
    entry(cache, "data", KEY)

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(DiskError, match="Permission denied"):
        look(cache)
