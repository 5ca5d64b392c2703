"""Hub datasets, against a hub on this machine: what is fetched, how much of it, and how its faults are told.

huggingface_hub reads its address once, at import, so each test asks from a process of its own.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hone
from hone.data.importers.hub import is_hub_id
from tests.data.importers.fake_hub import COMMIT, OLD_COMMIT, Hub, running_hub
from tests.data.importers.kinds import ROWS

ASK = """
import json, sys
from pathlib import Path
from hone.data.importers.row_file import find_rows
from hone.data.reader import RowReader
from hone.errors import HoneError
for asked in json.loads(sys.argv[1]):
    told = []
    try:
        found = find_rows(
            **asked, cache_dir=Path(sys.argv[2]), say=lambda event, about: told.append(about)
        )
        rows = [row.value for row in RowReader(found.path, name=found.name)]
        answer = {"name": found.name, "path": str(found.path), "rows": rows, "told": told}
    except HoneError as fault:
        answer = {"fault": type(fault).__name__, "what": str(fault)}
    print(json.dumps(answer))
assert "torch" not in sys.modules
"""


def jsonl(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv(rows) -> bytes:
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(",".join(line) + "\n" for line in lines).encode()


def parquet(rows, **settings) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, **settings)
    return sink.getvalue()


class Asker:
    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.environment: dict[str, str] = {}

    def __call__(self, *asked: dict[str, Any], **environment: str) -> list[dict[str, Any]]:
        told = self.run(ASK, json.dumps(asked), str(self.folder / "cache"), **environment)
        return [json.loads(line) for line in told.splitlines()]

    def run(self, code: str, *words: str, **environment: str) -> str:
        told = {
            **{key: value for key, value in os.environ.items() if key != "HF_TOKEN"},
            "PYTHONPATH": str(Path(hone.__file__).parents[1]),
            "HF_ENDPOINT": self.hub.address,
            "HF_HOME": str(self.folder / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            **environment,
        }
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env=told,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def ask(tmp_path):
    with running_hub() as hub:
        folder = tmp_path / "work"
        folder.mkdir()
        yield Asker(hub, folder)


def test_names_of_datasets():
    for name in ("openai/gsm8k", "a/b", "org/name.v1", "tatsu-lab/alpaca", "A_b/c-d.e"):
        assert is_hub_id(name)
    for name in (
        "gsm8k",
        "./a/b",
        "/a/b",
        "~/a",
        "a/b/c",
        "data/rows.jsonl",
        "a/b.CSV",
        "a//b",
        "",
    ):
        assert not is_hub_id(name)


def test_splits_of_every_kind_come_as_they_are(ask):
    ask.hub.put("org/jsonl", {"train.jsonl": jsonl(ROWS), "test.jsonl": jsonl(ROWS[:1])})
    ask.hub.put("org/csv", {"data/train-1.csv": csv(ROWS[:2]), "data/train-2.csv": csv(ROWS[2:])})
    ask.hub.put(
        "org/parquet",
        {
            "README.md": b"---\nconfigs:\n- config_name: main\n  data_files:\n"
            b"  - split: train\n    path: main/train-*\n- config_name: more\n  data_files: more/*\n---\n",
            "main/train-0.parquet": parquet(ROWS),
            "more/train.parquet": parquet(ROWS[3:]),
        },
    )
    found = ask(
        {"path": "org/jsonl"},
        {"path": "org/jsonl", "split": "test"},
        {"path": "org/csv"},
        {"path": "org/parquet", "subset": "main"},
        {"path": "org/parquet", "subset": "more"},
        {"path": "org/parquet"},
        {"path": "org/parquet", "subset": "mian"},
        {"path": "org/jsonl", "split": "tset"},
    )
    wanted = [ROWS, ROWS[:1], ROWS, ROWS, ROWS[3:]]
    assert [one["rows"] for one in found[:5]] == wanted
    names = ["org/jsonl@train", "org/jsonl@test", "org/csv@train", "org/parquet@train"]
    assert [one["name"] for one in found[:4]] == names
    assert found[0]["path"].endswith(f"{COMMIT}/train.jsonl")  # in the hub's own cache, untouched
    assert [one["fault"] for one in found[5:]] == ["ConfigError"] * 3
    assert "several subsets" in found[5]["what"]
    assert "main, more" in found[5]["what"]
    assert "did you mean 'main'?" in found[6]["what"]
    assert "allowed: test, train" in found[7]["what"]


def test_a_revision_and_a_token(ask):
    ask.hub.put("org/name", {"train.csv": csv(ROWS)})
    ask.hub.put("org/name", {"train.csv": csv(ROWS[:1])}, revision=OLD_COMMIT)
    asked = {"path": "org/name"}
    now, old, none = ask(
        asked, {**asked, "revision": "v1"}, {**asked, "revision": "v3"}, HF_TOKEN="hf_secret"
    )
    assert (now["rows"], old["rows"]) == (ROWS, ROWS[:1])
    assert none["fault"] == "ConfigError"
    assert "no revision 'v3'" in none["what"]
    assert "Bearer hf_secret" in ask.hub.tokens
    kept = b"".join(p.read_bytes() for p in (ask.folder / "cache").rglob("*") if p.is_file())
    assert b"hf_secret" not in kept


def test_streaming_fetches_no_more_than_the_rows_that_are_wanted(ask):
    many = [{"prompt": f"{i:06} " + "x" * 1000, "completion": "y"} for i in range(16_000)]
    files = {
        "jsonl": {"train.jsonl": jsonl(many)},
        "csv": {"train.csv": csv(many)},
        "parquet": {
            "train.parquet": parquet(
                many, row_group_size=1000, compression="none", use_dictionary=False
            )
        },
    }
    for kind, one in files.items():
        ask.hub.put(f"org/{kind}", one)
        size = sum(map(len, one.values()))
        before = ask.hub.bytes_sent
        asked = {"path": f"org/{kind}", "streaming": True, "max_rows": 50}
        found, again = ask(asked, asked)
        assert found["rows"] == again["rows"] == many[:50]
        assert {about["code"] for about in found["told"]} == {"imported", "max-rows"}
        assert ask.hub.bytes_sent - before < size / 2
        assert not list((ask.folder / "home").rglob(f"train.{kind}"))


def test_faults_are_told_in_our_words(ask):
    ask.hub.put("org/gated", {"train.csv": csv(ROWS)})
    ask.hub.gated.add("org/gated")
    ask.hub.put("org/empty", {"notes.xyz": b"x"})
    ask.hub.put("org/pickled", {"train.pkl": b"x", "train.bin": b"y"})
    outside = (
        b"---\nconfigs:\n- config_name: default\n  data_files: hf://datasets/org/other/x.csv\n---\n"
    )
    ask.hub.put("org/outside", {"README.md": outside, "train.csv": csv(ROWS)})
    ask.hub.put("org/other", {"x.csv": csv(ROWS)})
    ask.hub.put("org/bad", {"train.csv": b"a,b\n1\n"})
    names = ["nothing", "gated", "empty", "pickled", "outside", "bad"]
    nothing, gated, empty, pickled, outside, bad = ask(*({"path": f"org/{n}"} for n in names))
    assert nothing["fault"] == "DataError"
    assert "no such file or folder here, and no such dataset on the hub" in nothing["what"]
    assert gated["fault"] == "EnvironmentFault"
    assert "HF_TOKEN" in gated["what"]
    assert empty["fault"] == pickled["fault"] == outside["fault"] == bad["fault"] == "DataError"
    assert "don't belong to org/outside" in outside["what"]
    assert "where: org/bad/train.csv:2" in bad["what"]


def test_what_another_program_fetched_serves_without_a_network(ask):
    ask.hub.put("org/csv", {"train-1.csv": csv(ROWS[:2]), "train-2.csv": csv(ROWS[2:])})
    fetch = "import huggingface_hub as hub; hub.snapshot_download('org/csv', repo_type='dataset'"
    ask.run(f"{fetch}, allow_patterns='train-1.csv')")
    [part] = ask({"path": "org/csv"}, HF_HUB_OFFLINE="1")
    assert part.get("fault") == "EnvironmentFault", "half of a dataset must not pass for the whole"
    ask.run(f"{fetch})")
    [whole] = ask({"path": "org/csv"}, HF_HUB_OFFLINE="1")
    assert whole["rows"] == ROWS
    assert COMMIT in whole["told"][0]["message"]


def test_what_was_fetched_serves_without_a_network(ask):
    ask.hub.put("org/csv", {"train.csv": csv(ROWS), "test.csv": csv(ROWS)})
    ask.hub.put("org/jsonl", {"train.jsonl": jsonl(ROWS)})
    asked = [{"path": "org/csv"}, {"path": "org/jsonl"}]
    ask(*asked)
    for away in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        found = ask(*asked, {"path": "org/csv", "split": "test"}, {"path": "org/new"}, **away)
        if "HF_ENDPOINT" in away:  # another hub: nothing is known of it
            assert [one["fault"] for one in found] == ["EnvironmentFault"] * 4
            assert "the hub gives no answer" in found[0]["what"]
            continue
        assert [one["rows"] for one in found[:2]] == [ROWS, ROWS]
        assert f"taken as it was at commit {COMMIT}" in found[0]["told"][0]["message"]
        assert [one["fault"] for one in found[2:]] == ["EnvironmentFault"] * 2
        assert "HF_HUB_OFFLINE is set" in found[3]["what"]
    ask.hub.datasets.clear()
    ask.hub.shutdown()
    ask.hub.server_close()
    [found] = ask(asked[0])
    assert found["rows"] == ROWS
    assert "the hub was not asked" in found["told"][0]["message"]
