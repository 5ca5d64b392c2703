"""A table, a folder and held-out rows reach preview and training as the rows that they are, under the user's name."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hone.cli.main import run
from hone.config.sections import Config, DataSection, ModelSection, SourceSection
from hone.data.prepare import prepare
from hone.data.steps import StepSource
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError, DataError
from hone.recipes.preview import preview
from hone.recipes.rows import held_out_rows, source_weights, training_rows
from tests.data.small import CHATML, byte_level

TEXTS = ["2024-01-01", "001", "true", "1e5", "null"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    byte_level().save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\n" + "".join(f"say {text},{text}\n" for text in TEXTS))
    return path


def silent(event: str, told: dict) -> None:
    """Hears nothing."""


def hone(*words: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def test_the_text_of_a_table_reaches_the_tokenizer_byte_for_byte(table, model):
    code, out, err = hone("preview", table, "--model", model, "--json", "--rows", 9)
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["trained_text"] for one in found] == [[f"{text}<|im_end|>"] for text in TEXTS]
    assert [one["origin"] for one in found] == [
        {"file": str(table), "line": number} for number in range(1, 6)
    ]


def test_what_the_import_noticed_is_shown(table, model, tmp_path):
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes() + b"\n")
    code, out, _ = hone("preview", table, "--model", model, "data.max_rows=4")
    assert code == 0
    assert "4 rows imported" in out
    assert "data.max_rows" in out
    assert "byte order mark" in out
    assert str(tmp_path / "cache") not in out


def test_training_prepares_imported_rows_under_their_own_name(table, model, tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    message = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    }
    other = {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}
    pq.write_table(pa.Table.from_pylist([message] * 3), both / "train.parquet")
    pq.write_table(pa.Table.from_pylist([other]), both / "validation.parquet")
    section = DataSection(path=str(both), validation_path=str(both))
    tokenizer = TextTokenizer.load(model)
    events = []
    prepared = prepare(
        section,
        rows=training_rows(section, silent),
        held_out=held_out_rows(section, silent),
        tokenizer=tokenizer,
        template=load_template(tokenizer),
        max_length=1000,
        cache_dir=None,
        say=lambda event, told: events.append((event, told)),
    )
    assert prepared.train.num_rows == 3
    assert prepared.train.row_name(2) == f"{both}@train:3"
    assert prepared.validation is not None
    assert prepared.validation.row_name(0) == f"{both}@validation:1"
    assert prepared.ledger_json()["file"] == f"{both}@train"
    assert [told["file"] for event, told in events if event == "data"] == [
        f"{both}@train",
        f"{both}@validation",
    ]


def test_a_fault_of_an_imported_row_names_it_as_the_user_does(tmp_path, model):
    path = tmp_path / "rows.parquet"
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": role, "content": "b"}]}
            for role in ("assistant", "robot")]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path)
    config = Config(data=DataSection(path=str(path)), model=ModelSection(name=str(model)))
    with pytest.raises(DataError, match="robot") as caught:
        preview(config)
    assert caught.value.where.startswith(f"{path}:2")


@pytest.mark.parametrize(
    ("data", "words", "code"),
    [
        (b"PAR1 and so on and so on", "give it a name that ends in .parquet", 3),
        (b"\x1f\x8b\x08 and so on and so on", "gzip", 3),
        (b"PK\x03\x04 and so on and so on", "zip", 3),
    ],
)
def test_rows_in_disguise_end_with_the_code_of_data(tmp_path, model, data, words, code):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    found, _, err = hone("preview", path, "--model", model)
    assert found == code
    assert words in err


def test_sources_are_mixed_by_weight(table, model, tmp_path):
    second = tmp_path / "more.jsonl"
    second.write_text("".join(f'{{"user": "q{n}", "assistant": "b{n}"}}\n' for n in range(5)))
    sources = [
        SourceSection(path=str(table), weight=0.8, name="first"),
        SourceSection(path=str(second), weight=0.2, format="turns"),
    ]
    section = DataSection(sources=sources)
    rows = training_rows(section, silent)
    assert [one.file.name for one in rows] == ["first", str(second)]
    tokenizer = TextTokenizer.load(model)
    prepared = prepare(
        section,
        rows=rows,
        tokenizer=tokenizer,
        template=load_template(tokenizer),
        max_length=1000,
        cache_dir=None,
        say=silent,
    )
    assert prepared.train.row_counts == (5, 5)
    steps = StepSource(
        prepared.train,
        batch_size=5,
        seed=0,
        shuffle=True,
        share_prefixes=True,
        pack=True,
        weights=source_weights(section, prepared.train.row_counts),
    )
    for epoch in range(4):
        names = [name for k in (2 * epoch, 2 * epoch + 1) for name in steps.step(k, 1000).row_names]
        assert sum(name.startswith("first") for name in names) == 8
        assert len(names) == 10
    told = prepared.ledger_json()
    assert (told["read"], told["kept"]) == (10, 10)
    assert [one["file"] for one in told["files"]] == ["first", str(second)]


def test_a_weight_that_comes_to_nothing_is_refused():
    sources = [SourceSection(path="a", weight=weight) for weight in (1.0, 1e-9)]
    with pytest.raises(ConfigError, match="gives no row"):
        source_weights(DataSection(sources=sources), (10, 10))


def test_preview_shows_the_first_of_several_sources(table, model):
    said = f"data.sources=[{{path: {table}}}, {{path: {table}}}]"
    code, out, err = hone("preview", said, "--model", model)
    assert code == 0, err
    assert "first of 2 sources" in out + err
