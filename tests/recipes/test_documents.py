"""Documents to rows: what stands where, what is left out and why, and that the rows train."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hone.cli.main import run
from hone.config.layers import resolve
from hone.config.sections import DataSection, ModelSection
from hone.errors import ConfigError, DataError, EnvironmentFault
from hone.recipes.documents import write_documents
from hone.recipes.train import train
from tests.data.documents.papers import bomb, locked_pdf, paragraph, pdf_file, word_file
from tests.folders import chat_rows, model_folder, tokenizer_folder


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "no.txt").write_text(paragraph(90))
    (folder / "a.txt").write_text("\ufeff" + "\n\n".join(paragraph(i) for i in range(3)))
    (folder / "deep" / "b.md").write_text("# Title\r\n\r\n" + paragraph(10))
    word_file(folder / "deep" / "er" / "c.docx", [paragraph(20), paragraph(21)], [["town", "souls"], ["Ulm", "900"]])  # fmt: skip
    pdf_file(
        folder / "d.pdf", [paragraph(30).replace(". ", ".\n"), paragraph(31).replace(". ", ".\n")]
    )
    lines = [{"text": paragraph(40)}, {"content": paragraph(41)}, {"messages": []}]
    (folder / "e.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + "not json\n"
    )
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def test_every_kind_is_read_with_its_place(library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "cpt.jsonl"
    report = write_documents(library, out, DataSection())
    rows = rows_of(out)
    found = {row["source"]: row for row in rows}
    assert set(found) == {"a.txt", "d.pdf", "deep/b.md", "deep/er/c.docx", "e.jsonl:1", "e.jsonl:2"}
    assert found["a.txt"]["place"] == "paragraphs 1-3"
    assert found["a.txt"]["text"] == "\n\n".join(paragraph(i) for i in range(3))
    assert found["deep/b.md"]["text"] == "# Title\n\n" + paragraph(10)
    assert "town | souls\n\nUlm | 900" in found["deep/er/c.docx"]["text"]
    assert found["d.pdf"]["place"] == "pages 1-2"
    assert paragraph(30)[:60] in found["d.pdf"]["text"]
    assert report.passed_over == {".png": 1}
    assert report.documents == 8
    assert report.documents_kept == 6
    assert {place for one in report.faults.values() for place in one.places} == {
        "e.jsonl:3",
        "e.jsonl:4",
    }
    assert report.pieces == report.kept == report.rows == 6
    ledger = json.loads((tmp_path / "out" / "cpt.jsonl.ledger.json").read_text())
    assert ledger["documents_left_out"]["no text under text, content, body"]["places"] == [
        "e.jsonl:3"
    ]


def test_equal_and_almost_equal_texts_are_left_out_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    text = paragraph(1, 30)
    (folder / "1.txt").write_text(text)
    (folder / "2.txt").write_text(text.replace(" ", "  "))
    (folder / "3.txt").write_text(text.replace("salt", "iron", 1))
    (folder / "4.txt").write_text(paragraph(77, 30))
    (folder / "5.txt").write_text("Too short.")
    out = tmp_path / "cpt.jsonl"
    report = write_documents(folder, out, DataSection())
    assert [row["source"] for row in rows_of(out)] == ["1.txt", "4.txt"]
    dropped = {reason: one.places for reason, one in report.dropped.items()}
    assert dropped == {
        "the same text as an earlier one": ["2.txt, paragraph 1"],
        "almost the same text as an earlier one": ["3.txt, paragraph 1"],
        "shorter than data.min_text_length": ["5.txt, paragraph 1"],
    }
    assert report.dropped["almost the same text as an earlier one"].details == [
        "as 1.txt, paragraph 1"
    ]
    assert report.pieces == report.kept + sum(len(places) for places in dropped.values())


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    good = pdf_file(folder / "good.pdf", [paragraph(1).replace(". ", ".\n")])
    locked_pdf(folder / "locked.pdf", good)
    pdf_file(folder / "scan.pdf", ["", ""])
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\nnothing")
    bomb(folder / "bomb.docx")
    (folder / "broken.docx").write_bytes(b"PK\x03\x04 not a package")
    (folder / "old.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 100)
    word_file(folder / "half.docx", ["one"])
    data = (folder / "half.docx").read_bytes()
    (folder / "half.docx").write_bytes(data[: len(data) // 2])
    (folder / "latin.txt").write_bytes("Gruß und Kuß".encode("latin-1"))
    (folder / "empty.txt").write_text("  \n\n ")
    out = tmp_path / "cpt.jsonl"
    assert run(["documents", str(folder), "--to", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    reasons = {place: reason for reason, one in said["documents_left_out"].items() for place in one["places"]}  # fmt: skip
    assert reasons["locked.pdf"] == "behind a password"
    assert "a scan" in reasons["scan.pdf"]
    assert "broken" in reasons["broken.pdf"]
    assert "unpacks to" in reasons["bomb.docx"]
    assert reasons["broken.docx"] == reasons["half.docx"] == "not a Word document"  # fmt: skip
    assert "password" in reasons["old.docx"]
    assert "not UTF-8" in reasons["latin.txt"]
    assert reasons["empty.txt"] == "no text in it"
    assert len(reasons) == 9
    remedies = {reason: one.get("remedy", "") for reason, one in said["documents_left_out"].items()}
    assert all(remedies[reason] for place, reason in reasons.items() if place != "empty.txt")
    assert [row["source"] for row in rows_of(out)] == ["good.pdf"]
    assert run(["documents", str(folder), "--to", str(out), "--force"]) == 0
    shown = capsys.readouterr().out
    assert "locked.pdf" in shown
    assert "remedy: read it with OCR" in shown


def test_nothing_left_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("short")
    with pytest.raises(DataError, match="no text is left"):
        write_documents(tmp_path / "in", tmp_path / "out.jsonl", DataSection())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    (tmp_path / "in" / "a.txt").rename(tmp_path / "in" / "a.png")
    with pytest.raises(DataError, match=r"no documents there; found \.png 1"):
        write_documents(tmp_path / "in", tmp_path / "out.jsonl", DataSection())


def test_an_absent_package_is_told_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    pdf_file(tmp_path / "in" / "a.pdf", ["x"])
    monkeypatch.setitem(sys.modules, "pypdf", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault) as caught:
        write_documents(tmp_path / "in", tmp_path / "out.jsonl", DataSection())
    assert "hone[documents]" in str(caught.value)
    assert caught.value.exit_code == 4


def test_blocks_hold_every_token_once(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.txt").write_text(paragraph(i, 6))
    model = ModelSection(name=str(tokenizer_folder(tmp_path / "model")))
    with pytest.raises(ConfigError, match="no model says which"):
        write_documents(folder, tmp_path / "a.jsonl", DataSection(block_size=64))
    report = write_documents(folder, tmp_path / "b.jsonl", DataSection(block_size=64), model=model)
    blocks = [row["input_ids"] for row in rows_of(tmp_path / "b.jsonl")]
    assert {len(one) for one in blocks[:-1]} == {64}
    assert 0 < len(blocks[-1]) <= 64
    ids = [i for one in blocks for i in one]
    assert report.tokens == len(ids)
    assert ids.count(2) == 4  # each text has its end
    from hone.data.tokenizer import TextTokenizer

    text = TextTokenizer.load(tmp_path / "model").decode(ids)
    assert text == "".join(paragraph(i, 6) + "<|im_end|>" for i in range(4))


def test_flags_settings_and_what_has_no_effect(
    library: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = ["--to", str(tmp_path / "x.jsonl"), "--force"]
    monkeypatch.setenv("HONE_DATA_CHUNK_SIZE", "500")
    assert run(["documents", str(library), *out]) == 0
    assert max(len(row["text"]) for row in rows_of(tmp_path / "x.jsonl")) <= 500
    assert run(["documents", str(library), "data.chunk_size=300", *out]) == 0
    assert max(len(row["text"]) for row in rows_of(tmp_path / "x.jsonl")) <= 300
    for words in (
        ["--overlap", "400"],
        ["--min-text-length", "900"],
        ["train.epochs=3"],
        ["--model", "x"],
    ):
        assert run(["documents", str(library), *out, *words]) == 2
    assert "leave it out" in capsys.readouterr().err


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("blocks", [False, True])
def test_a_model_trains_on_documents_mixed_with_chats(
    library: Path, tmp_path: Path, blocks: bool
) -> None:
    model = model_folder(tmp_path / "model")
    section = DataSection(chunk_size=300, min_text_length=100, block_size=128 if blocks else None)
    write_documents(library, tmp_path / "cpt.jsonl", section, model=ModelSection(name=str(model)))
    chat_rows(tmp_path / "chat.jsonl")
    config = tmp_path / "run_dapt.yaml"
    config.write_text(
        f"model: {{name: {model}}}\n"
        f"data:\n  sources:\n    - {{path: {tmp_path}/cpt.jsonl, weight: 0.9, name: documents}}\n"
        f"    - {{path: {tmp_path}/chat.jsonl, weight: 0.1, name: chats}}\n"
        "  validation_split: 0.1\n  too_long: cut\n"
        "train: {max_steps: 4, batch_size: 4, learning_rate: 1.0e-2, eval_steps: 2}\n"
        "compute: {micro_batch_tokens: 512}\n"
        f"output: {{dir: {tmp_path}/run}}\n"
    )
    done = train(resolve(file=config))
    assert done.steps == 4
    assert done.validation_loss is not None
    events = [
        json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    ]
    assert not [e for e in events if e.get("code") == "unknown-key"]
    losses = [e for e in events if e.get("event") == "evaluated"]
    assert losses
