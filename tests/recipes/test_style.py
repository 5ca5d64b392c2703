"""Style as a whole: files and folders, the manifest, and that nothing stacks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.errors import ConfigError, DataError
from hone.recipes.change import Places
from hone.recipes.style import style, styled_place
from tests.data.mixed_rows import check_sum, line, mixed, write

ROWS = [line({"system": "s", "user": f"q{n}", "assistant": "a"}) for n in range(3)]


def systems(path: Path) -> set[str]:
    return {json.loads(one)["system"] for one in path.read_text().splitlines()}


@given(mixed, st.sampled_from(["prepend", "replace"]))
def test_read_is_kept_and_dropped(tmp_path_factory, lines, mode) -> None:
    folder = tmp_path_factory.mktemp("style")
    source = write(folder / "rows.jsonl", lines)
    try:
        report = style(Places(source, folder / "once.jsonl"), "Be brief.", mode=mode)
    except DataError:
        assert [one.name for one in folder.iterdir()] == ["rows.jsonl"]
        return
    check_sum(report.to_json(), lines=lines)
    assert report.kept == report.ledgers[0].kept
    again = style(Places(folder / "once.jsonl", folder / "twice.jsonl"), "Be brief.", mode=mode)
    assert again.kept == report.kept
    assert (folder / "once.jsonl").read_bytes() == (folder / "twice.jsonl").read_bytes()
    assert set(again.ledgers[0].noted) == {"the style was there already"}


def test_a_folder_and_its_manifest(tmp_path: Path) -> None:
    processed = tmp_path / "data" / "processed"
    for part in ("train", "val"):
        write(processed / f"{part}.jsonl", ROWS)
    (processed / "style.json").write_text('{"style": "Old.", "mode": "prepend"}')
    out = styled_place(processed)
    assert out.name == "processed_with_style"
    report = style(Places(processed, out), " Be brief.\n")
    assert sorted(one.name for one in out.iterdir()) == ["style.json", "train.jsonl", "val.jsonl"]
    assert list(report.written.values()) == [3, 3]
    manifest = json.loads((out / "style.json").read_text())
    sha = hashlib.sha256((processed / "train.jsonl").read_bytes()).hexdigest()
    assert manifest["style"] == "Be brief."
    assert manifest["mode"] == "prepend"
    assert manifest["earlier"] == ["Old."]
    assert {"file": str(processed / "train.jsonl"), "sha256": sha} in manifest["source"]
    assert systems(out / "train.jsonl") == {"Be brief.\n\ns"}


def test_another_style_does_not_stack(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", ROWS)
    steps = ["One.", "Two.", "Two.", "One.", "Three."]
    for number, text in enumerate(steps):
        out = tmp_path / f"{number}.jsonl"
        style(Places(source, out), text)
        assert systems(out) == {f"{text}\n\ns"}
        source = out
    style(Places(source, tmp_path / "r.jsonl"), "Four.", mode="replace")
    assert systems(tmp_path / "r.jsonl") == {"Four."}
    style(Places(tmp_path / "r.jsonl", tmp_path / "p.jsonl"), "Five.")
    assert systems(tmp_path / "p.jsonl") == {"Five."}


def test_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in" / "rows.jsonl", ROWS)
    with pytest.raises(ConfigError, match="style is empty"):
        style(Places(source, tmp_path / "o.jsonl"), " ")
    for place in (source, source.parent):
        with pytest.raises(ConfigError, match="in place"):
            style(Places(place, place, force=True), "x")
    with pytest.raises(DataError, match="no file of rows"):
        style(Places(tmp_path, tmp_path / "out"), "x")
    texts = write(tmp_path / "texts.jsonl", [line({"text": "a"})])
    with pytest.raises(DataError, match="'text' have no place"):
        style(Places(texts, tmp_path / "o.jsonl"), "x")
    (tmp_path / "in" / "style.json").write_text("[]")
    with pytest.raises(DataError, match="manifest"):
        style(Places(tmp_path / "in", tmp_path / "out"), "x")
    write(tmp_path / "out" / "val.jsonl", ROWS)
    (tmp_path / "in" / "style.json").unlink()
    with pytest.raises(ConfigError, match="part of other rows"):
        style(Places(tmp_path / "in", tmp_path / "out"), "x")
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["val.jsonl"]


def test_default_places() -> None:
    assert styled_place(Path("data/processed")) == Path("data/processed_with_style")
    assert styled_place(Path("a/rows.v2.jsonl")) == Path("a/rows.v2_with_style.jsonl")
    assert styled_place(Path("data/v1.2")) == Path("data/v1.2_with_style")
