"""Where rows are: what is taken as it is, what is imported, once, whole, and told; what is refused."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.data.importers.findings import Findings
from hone.data.importers.row_file import RowFile, find_rows
from hone.data.importers.store import ImportStore
from hone.data.reader import RowReader
from hone.errors import ConfigError, DataError, DiskError, EnvironmentFault
from tests.data.importers.kinds import ROWS, write

ENDINGS = [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("upper", [False, True])
def test_the_same_rows_come_from_every_kind_of_file(tmp_path, find, ending, upper):
    path = write(tmp_path / f"rows{ending}")
    if upper and ending not in (".json",):
        path = path.rename(path.with_suffix(ending.upper()))
    assert find.rows(path) == ROWS
    assert find.rows(path, max_rows=2) == ROWS[:2]
    assert "max-rows" in find.codes
    assert find.rows(path, max_rows=99) == ROWS
    assert "max-rows" not in find.codes


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_what_is_json_already_is_not_touched(tmp_path, find, ending):
    path = write(tmp_path / f"rows{ending}")
    assert find(path) == RowFile(path, str(path))
    assert (find.told, find.imports) == ([], [])


def test_an_import_has_a_row_a_line_and_the_name_that_the_user_gave(tmp_path, find):
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion\n"a\nb",1\n\nc,2\n')
    found = find(path)
    assert found.name == str(path)
    rows = list(RowReader(found.path, name=found.name))
    assert [str(row.origin) for row in rows] == [f"{path}:1", f"{path}:2"]
    assert found.path.read_bytes().count(b"\n") == 2
    assert find.codes == ["imported", "blank-lines"]
    assert "2 rows imported" in find.told[0]["message"]


def test_an_import_is_made_once_and_told_each_time(tmp_path, find):
    path = write(tmp_path / "rows.parquet")
    first = find(path)
    made = first.path.stat()
    told = find.told
    assert find(path) == first
    assert first.path.stat().st_mtime_ns == made.st_mtime_ns
    assert find.told == told
    moved = path.rename(tmp_path / "moved.parquet")
    again = find(moved)
    assert (again.path, again.name) == (first.path, str(moved))
    assert all(str(moved) in one["message"] for one in find.told)


def test_other_content_or_settings_are_another_import(tmp_path, find):
    path = write(tmp_path / "rows.csv")
    found = {find(path).path, find(path, max_rows=2).path, find(path, max_rows=3).path}
    path.write_text(path.read_text() + "x,y\n")
    found.add(find(path).path)
    found.add(find(write(tmp_path / "rows.tsv")).path)
    assert len(found) == 5


def test_the_same_bytes_under_another_ending_are_not_the_same_rows(tmp_path, find):
    a, b = tmp_path / "a.csv", tmp_path / "b.tsv"
    a.write_text("p\tq,r\n1\t2,3\n")
    b.write_text("p\tq,r\n1\t2,3\n")
    assert find.rows(a) == [{"p\tq": "1\t2", "r": "3"}]
    assert find.rows(b) == [{"p": "1", "q,r": "2,3"}]


@pytest.mark.parametrize("damage", ["cut", "gone", "about"])
def test_a_damaged_import_is_made_again(tmp_path, find, damage):
    path = write(tmp_path / "rows.csv")
    found = find(path).path
    if damage == "cut":
        found.write_bytes(found.read_bytes()[:-5])
    elif damage == "gone":
        found.unlink()
    else:
        (found.parent / "about.json").write_text("{")
    assert find.rows(path) == ROWS
    assert len(find.imports) == 1


def test_a_refused_file_leaves_nothing_behind(tmp_path, find):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(DataError, match="1 fields"):
        find(path)
    assert find.imports == []
    path.write_text("a,b\n")
    with pytest.raises(DataError, match="no rows"):
        find(path)
    assert find.imports == []


def test_a_bad_row_behind_the_wanted_ones_is_not_reached(tmp_path, find):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n3\n")
    assert find.rows(path, max_rows=1) == [{"a": "1", "b": "2"}]
    assert "max-rows" in find.codes


def _import(path: str, cache: str, gate) -> None:
    gate.wait()
    find_rows(path, cache_dir=Path(cache), say=lambda *_: None)


def test_two_writers_of_one_import_do_not_disturb_each_other(tmp_path, find):
    path = write(tmp_path / "rows.csv", [{"a": str(i), "b": "x"} for i in range(3000)])
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(3)
    writers = [
        context.Process(target=_import, args=(str(path), str(find.cache), gate)) for _ in range(3)
    ]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert [one.exitcode for one in writers] == [0, 0, 0]
    assert len(find.imports) == 1
    assert len(find.rows(path)) == 3000


def test_what_a_killed_writer_left_is_swept_and_a_living_one_left_alone(tmp_path):
    store = ImportStore(tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".key.{dead.pid}.aa.part"
    living = tmp_path / f".key.{os.getppid()}.aa.part"
    for folder in (left, living):
        folder.mkdir()
    store.write("key", [{"a": 1}], Findings(), name="x")
    assert not left.exists()
    assert living.exists()


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, find, monkeypatch):
    from hone.data.importers import row_file

    path = write(tmp_path / "rows.csv")
    read = row_file.raw_rows

    def slow(file, findings):
        yield from read(file, findings)
        path.write_text(path.read_text() + "x,y\n")

    monkeypatch.setattr(row_file, "raw_rows", slow)
    with pytest.raises(DataError, match="changed while it was read"):
        find(path)
    assert find.imports == []


def test_a_cache_that_cannot_be_written_is_told(tmp_path, find):
    find.cache.write_text("a file")
    with pytest.raises(DiskError, match="cannot write imported rows") as caught:
        find(write(tmp_path / "rows.csv"))
    assert "HONE_CACHE" in caught.value.remedy


def test_a_row_over_the_cap_is_refused_at_the_import(tmp_path, find):
    big = pa.table({"a": ["x", "y" * (64 * 2**20)]})
    pq.write_table(big, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="64 MiB") as caught:
        find(tmp_path / "rows.parquet")
    assert caught.value.where.endswith("rows.parquet:2")


def test_integers_of_any_length_stay_exact(tmp_path, find):
    (tmp_path / "rows.jsonl").write_text('{"a": 100000000000000000000000000001}\n{"a": 2}\n')
    assert find.rows(tmp_path / "rows.jsonl", max_rows=1) == [{"a": 10**29 + 1}]


# What cannot be meant


def test_settings_that_do_not_fit_what_is_there(tmp_path, find):
    path = write(tmp_path / "rows.csv")
    for asked, words in [
        ({"split": "train"}, "no split"),
        ({"subset": "x"}, "no subset"),
        ({"revision": "main"}, "data.revision"),
    ]:
        with pytest.raises(ConfigError, match=words) as caught:
            find(path, **asked)
        assert caught.value.remedy
    find(path, streaming=True)
    assert "idle-setting" in find.codes


def test_what_is_no_file_of_rows(tmp_path, find, monkeypatch):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="a pipe"):  # and does not wait for a writer
        find(pipe)
    with pytest.raises(DataError, match="a device"):
        find("/dev/null")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")  # a socket's path must be short
        with pytest.raises(DataError, match="a socket"):
            find("s")
    for name in ("no.jsonl", "data/no.csv", "./org/name", "/no/name", "a/b/c", "x" * 5000, "a\0b"):
        with pytest.raises(DataError, match=r"no such file|cannot look"):
            find(name)


def test_a_name_like_a_hub_id_that_is_here_is_here(tmp_path, find, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("org/name/train.csv"))
    assert find.rows("org/name") == ROWS
    shutil.rmtree("org")
    Path("org").mkdir()
    Path("org/name").write_text('{"a": 1}\n')
    assert find("org/name").path == Path("org/name")


@pytest.mark.parametrize(
    ("package", "name"),
    [("pyarrow", "rows.parquet"), ("pyarrow", "rows.arrow"), ("datasets", "set")],
)
def test_an_absent_package_is_told_with_what_to_install(tmp_path, package, name):
    if name == "set":
        write(tmp_path / "set" / "train.csv")
    else:
        write(tmp_path / name)
    code = (
        "import sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from pathlib import Path\n"
        "from hone.data.importers.row_file import find_rows\n"
        "from hone.errors import EnvironmentFault\n"
        "try:\n"
        f"    find_rows({str(tmp_path / name)!r}, cache_dir=Path({str(tmp_path)!r}), say=print)\n"
        "except EnvironmentFault as fault:\n"
        "    print(fault)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert package in done.stdout
    assert "pip install 'hone[tables]'" in done.stdout


def test_csv_and_json_need_no_package(tmp_path):
    write(tmp_path / "rows.csv")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from hone.data.importers.row_file import find_rows\n"
        f"find_rows({str(tmp_path / 'rows.csv')!r}, cache_dir=Path({str(tmp_path)!r}), say=print)\n"
        "heavy = {'pyarrow', 'datasets', 'pandas', 'huggingface_hub', 'torch'}\n"
        "assert not heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_offline_a_dataset_that_was_never_fetched_is_told(find, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnvironmentFault, match="HF_HUB_OFFLINE is set") as caught:
        find("nobody/has-this")
    assert "unset HF_HUB_OFFLINE" in caught.value.remedy
