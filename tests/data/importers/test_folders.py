"""Folders of files and folders saved by datasets: the split that was asked for, or an error that lists them."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from hone.data.importers.row_file import RowFile
from hone.errors import ConfigError, DataError
from tests.data.importers.kinds import ROWS, TEXTS, write

# Folders


def test_a_folder_is_split_by_the_names_of_its_files(tmp_path, find):
    folder = tmp_path / "set"
    for number in range(3):
        write(folder / "data" / f"train-{number:05}-of-00003.parquet", [ROWS[number]])
    write(folder / "data" / "test-00000-of-00001.parquet", ROWS[3:])
    (folder / "README.md").write_text("no card\n")
    assert find.rows(folder) == ROWS[:3]
    assert find(folder).name == f"{folder}@train"
    assert "from 3 files" in find.told[0]["message"]
    assert find.rows(folder, split="test") == ROWS[3:]
    with pytest.raises(ConfigError, match="no split 'tets'") as caught:
        find(folder, split="tets")
    assert "did you mean 'test'?" in caught.value.remedy
    with pytest.raises(ConfigError, match="one whole split") as caught:
        find(folder, split="train[:10]")
    assert "data.max_rows" in caught.value.remedy


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("place", ["{split}{ending}", "data/{split}{ending}", "{split}/a{ending}"])
def test_no_text_of_a_folder_is_guessed_at(tmp_path, find, ending, place):
    for split, rows in (("train", ROWS), ("validation", ROWS[:1])):
        write(tmp_path / "set" / place.format(split=split, ending=ending), rows)
    assert find.rows(tmp_path / "set") == ROWS
    assert find.rows(tmp_path / "set", prefer="validation") == ROWS[:1]


def test_one_jsonl_file_of_a_folder_is_not_touched(tmp_path, find):
    path = write(tmp_path / "set" / "train.jsonl")
    assert find(tmp_path / "set") == RowFile(path, str(path))


def test_several_files_of_a_split_follow_each_other_and_a_bad_row_names_its_file(tmp_path, find):
    folder = tmp_path / "set"
    write(folder / "train-a.jsonl", ROWS[:2])
    write(folder / "train-b.jsonl", ROWS[2:])
    assert find.rows(folder) == ROWS
    (folder / "train-b.jsonl").write_text('{"a": 1}\n{"a": 1, "a": 2}\n')
    with pytest.raises(DataError, match="twice") as caught:
        find(folder)
    assert caught.value.where == f"{folder}/train-b.jsonl:2"


def test_a_card_decides_and_may_not_reach_outside_or_change_the_reading(tmp_path, find):
    folder = tmp_path / "set"
    write(folder / "one" / "rows.csv")
    write(folder / "two" / "rows.csv", ROWS[:1])
    write(tmp_path / "secret.csv")
    card = "---\nconfigs:\n{}---\n"
    config = "- config_name: {}\n  data_files:\n  - split: train\n    path: {}\n{}"
    both = config.format("one", "one/*.csv", "") + config.format("two", "two/*.csv", "")
    (folder / "README.md").write_text(card.format(both))
    assert find.rows(folder, subset="two") == ROWS[:1]
    with pytest.raises(ConfigError, match="several subsets") as caught:
        find(folder)
    assert "one of: one, two" in caught.value.remedy
    with pytest.raises(ConfigError, match="no subset 'tow'") as caught:
        find(folder, subset="tow")
    assert "did you mean 'two'?" in caught.value.remedy
    for pattern, more, words in [
        ("../secret.csv", "", "outside"),
        (str(tmp_path / "secret.csv"), "", "outside"),
        ("one/*.csv", '  sep: ";"\n', "asks for sep=';'"),
    ]:
        (folder / "README.md").write_text(card.format(config.format("default", pattern, more)))
        with pytest.raises(DataError, match=words):
            find(folder)


def test_folders_without_rows(tmp_path, find):
    for name, content in [("empty", None), ("text", "notes.xyz")]:
        folder = tmp_path / name
        folder.mkdir()
        if content:
            (folder / content).write_text("x")
        with pytest.raises(DataError) as caught:
            find(folder)
        assert ".parquet" in caught.value.remedy
    write(tmp_path / "zipped" / "train.jsonl")
    with (tmp_path / "zipped" / "train.jsonl").open("rb") as source:
        data = gzip.compress(source.read())
    (tmp_path / "zipped" / "train.jsonl").unlink()
    (tmp_path / "zipped" / "train.jsonl.gz").write_bytes(data)
    with pytest.raises(DataError, match="files that are not read") as caught:
        find(tmp_path / "zipped")
    assert "unpack" in caught.value.remedy


def test_without_a_train_split_one_must_be_named(tmp_path, find):
    write(tmp_path / "set" / "test.csv")
    with pytest.raises(ConfigError, match="no split 'train'") as caught:
        find(tmp_path / "set")
    assert "one of: test" in caught.value.remedy


# Folders saved by datasets


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    import datasets

    folder = tmp_path_factory.mktemp("saved")
    rows = [
        {
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": "x", "y": 1},
            ]
        }
        for text in TEXTS
    ]
    every = datasets.Dataset.from_list(rows)
    every.save_to_disk(folder / "one", num_shards=2)
    both = datasets.DatasetDict({"train": every, "dev": every.select([1])})
    both.save_to_disk(folder / "dict")
    every.select([4, 2]).save_to_disk(folder / "selected")
    return folder


def test_a_saved_dataset(saved, find):
    rows = find.rows(saved / "one")
    assert [row["messages"][0] for row in rows] == [{"role": "user", "content": t} for t in TEXTS]
    assert rows[0]["messages"][1] == {"role": "assistant", "content": "x", "y": 1}
    assert find.codes == ["imported", "null-fields"]
    assert find(saved / "one").name == str(saved / "one")
    chosen = find.rows(saved / "selected")
    assert [row["messages"][0]["content"] for row in chosen] == [TEXTS[4], TEXTS[2]]


def test_a_saved_dataset_of_several_splits(saved, find):
    assert len(find.rows(saved / "dict")) == 5
    assert [row["messages"][0]["content"] for row in find.rows(saved / "dict", split="dev")] == [
        "001"
    ]
    assert find(saved / "dict", split="dev").name == f"{saved / 'dict'}@dev"
    with pytest.raises(ConfigError, match="no split 'test'") as caught:
        find(saved / "dict", split="test")
    assert "allowed: dev, train" in caught.value.remedy
    with pytest.raises(ConfigError, match="no split 'train'"):
        find(saved / "one", split="train")


def test_a_saved_dataset_that_is_not_whole(saved, find, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(saved / "one", folder)
    shard = folder / "data-00001-of-00002.arrow"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-8])
    with pytest.raises(DataError, match="cut off"):
        find(folder)
    shard.unlink()
    with pytest.raises(DataError, match="no such file"):
        find(folder)
    state = json.loads((folder / "state.json").read_text())
    for names in ([{"filename": "../one/data-00000-of-00002.arrow"}], [{}], None):
        (folder / "state.json").write_text(json.dumps({**state, "_data_files": names}))
        with pytest.raises(DataError, match="not whole"):
            find(folder)
    (folder / "state.json").write_text("{")
    with pytest.raises(DataError, match="not whole"):
        find(folder)
