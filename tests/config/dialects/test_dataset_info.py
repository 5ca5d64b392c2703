"""LLaMA-Factory's `dataset_info.json`: what each key of a dataset is in our settings of rows, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.config.dialects.dataset_info import read_datasets
from hone.errors import ConfigError


def source(folder: Path, about: dict[str, Any], *, stage: str = "sft") -> dict[str, object]:
    (folder / "dataset_info.json").write_text(json.dumps({"d": about}))
    return read_datasets(["d"], str(folder), stage=stage)[0].source


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"file_name": "a.json"}, {"format": "alpaca"}),
        (
            {"file_name": "a.json", "columns": {"prompt": "q", "response": "a", "query": None}},
            {"format": "alpaca", "columns": {"instruction": "q", "output": "a"}},
        ),
        (
            {
                "file_name": "a.json",
                "formatting": "sharegpt",
                "columns": {"messages": "m", "tools": "functions"},
                "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user"},
            },
            {
                "format": "sharegpt",
                "columns": {"conversations": "m", "tools": "functions"},
                "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user"},
            },
        ),
        (
            {"file_name": "a.json", "formatting": "openai", "columns": {"messages": "messages"}},
            {"format": "messages"},
        ),
        ({"file_name": "a.json", "num_samples": 5}, {"format": "alpaca", "max_rows": 5}),
        (
            {"hf_hub_url": "org/set", "subset": "s", "split": "dev"},
            {"path": "org/set", "format": "alpaca", "subset": "s", "split": "dev"},
        ),
    ],
)  # fmt: skip
def test_keys(tmp_path: Path, about: dict[str, Any], expected: dict[str, object]) -> None:
    path = {} if "hf_hub_url" in about else {"path": str(tmp_path / "a.json")}
    assert source(tmp_path, about) == {**path, "name": "d", **expected}


def test_a_column_that_is_not_named_is_told(tmp_path: Path) -> None:
    rows = [{"conversations": [], "system": "s", "tools": "[]"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    about = {"file_name": "a.json", "formatting": "sharegpt"}
    about |= {"columns": {"messages": "conversations", "system": "system"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"d": about}))
    (remark,) = read_datasets(["d"], str(tmp_path), stage="sft")[0].remarks
    assert "'tools'" in remark


def test_texts_of_the_stage_pt(tmp_path: Path) -> None:
    about = {"file_name": "a.json", "columns": {"prompt": "text"}}
    assert source(tmp_path, about, stage="pt")["format"] == "text"
    assert source(tmp_path, {"file_name": "a.json"}, stage="pt")["columns"] == {
        "text": "instruction"
    }


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"file_name": "a.json", "ranking": True}, "preferences"),
        ({"file_name": "a.json", "columns": {"images": "i"}}, "text alone"),
        ({"file_name": "a.json", "columns": {"chosen": "c"}}, "preferences"),
        ({"file_name": "a.json", "columns": {"promt": "c"}}, "promt"),
        ({"file_name": "a.json", "formatting": "sharegtp"}, "'sharegpt'"),
        ({"file_name": "a.json", "formating": "sharegpt"}, "'formatting'"),
        ({"script_url": "s"}, "script"),
        ({"ms_hub_url": "s"}, "ModelScope"),
        ({"cloud_file_name": "s3://x"}, "cloud"),
        ({}, "names no rows"),
        ({"file_name": "a.json", "tags": {"usr_tag": "x"}}, "'user_tag'"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, about: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        source(tmp_path, about)
    assert words in str(caught.value)


def test_an_absent_file_and_an_absent_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no dataset_info\.json"):
        read_datasets(["d"], str(tmp_path), stage="sft")
    (tmp_path / "dataset_info.json").write_text('{"data": {"file_name": "x"}}')
    with pytest.raises(ConfigError) as caught:
        read_datasets(["dta"], str(tmp_path), stage="sft")
    assert "did you mean 'data'?" in str(caught.value)


def test_names_of_the_hub(tmp_path: Path) -> None:
    assert read_datasets(["org/set"], "ONLINE", stage="sft")[0].source["path"] == "org/set"
    with pytest.raises(ConfigError, match="REMOTE"):
        read_datasets(["d"], "REMOTE:org/sets", stage="sft")
