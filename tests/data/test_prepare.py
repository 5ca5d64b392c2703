"""From a file to Datasets: lengths, held-out rows, the cache, and a ledger that adds up."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.config.sections import DataSection
from hone.data.ledger import Ledger
from hone.data.prepare import prepare
from hone.data.template import ChatTemplate, load_template
from hone.errors import ConfigError, DataError
from tests.data.small import CHATML, byte_level, family, text_tokenizer

U = {"role": "user", "content": "hi"}


def row(reply: str, **more):
    return {"messages": [U, {"role": "assistant", "content": reply, **more}]}


class Counting(ChatTemplate):
    """Counts how often it renders."""

    count = 0

    def render(self, *args, **how):
        self.count += 1
        return super().render(*args, **how)


def lead(
    tmp_path, rows, *, name="byte-level", max_length=10**6, cache=False, counting=None, **section
):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    tokenizer, template = family(name)
    said: list[tuple[str, dict]] = []
    prepared = prepare(
        DataSection(path=str(path), **section),
        tokenizer=tokenizer,
        template=counting or template,
        max_length=max_length,
        cache_dir=tmp_path / "cache" if cache else None,
        say=lambda event, told: said.append((event, told)),
    )
    return prepared, said


def test_every_row_is_accounted_for(tmp_path):
    rows = [row("one"), row("two", weight=0), row("three")]
    prepared, said = lead(tmp_path, rows)
    assert prepared.train.num_rows == 3  # a dropped row keeps its place and has nothing to train on
    assert [len(prepared.train.examples(r)) for r in range(3)] == [1, 0, 1]
    assert [prepared.train.row_name(r) for r in range(3)] == [
        f"{tmp_path}/rows.jsonl:{n}" for n in (1, 2, 3)
    ]
    assert prepared.ledgers[0].sentence() == "read 3 = kept 2 + dropped 1 (nothing to train on: 1)"
    assert prepared.ledgers[0].names(prepared.ledgers[0].dropped["nothing to train on"]) == [
        f"{tmp_path}/rows.jsonl:2"
    ]
    ((event, told),) = said
    assert event == "data"
    assert told["shape"] == "messages"
    assert told["summary"].startswith("messages, 3 rows")
    assert (told["rows"], told["examples"], told["dropped"]) == (2, 2, {"nothing to train on": 1})
    assert told["tokens"] == prepared.train.figures().tokens == prepared.ledgers[0].tokens
    assert told["trained_tokens"] == prepared.train.figures().trained_tokens
    assert (
        Ledger.from_json(json.loads(json.dumps(prepared.ledgers[0].to_json())))
        == prepared.ledgers[0]
    )


def test_nothing_to_train_on_is_refused(tmp_path):
    with pytest.raises(DataError, match="nothing to train on") as caught:
        lead(tmp_path, [row("one", weight=0), row("two", weight=0)])
    assert "rows.jsonl:1" in caught.value.where


def test_rows_that_the_template_refuses_are_dropped_with_its_words(tmp_path):
    bad = {"messages": [U, U, {"role": "assistant", "content": "x"}]}
    prepared, _ = lead(tmp_path, [row("one"), bad], name="llama2-first")
    (reason,) = prepared.ledgers[0].dropped
    assert "roles must alternate" in reason
    with pytest.raises(DataError, match="roles must alternate"):
        lead(tmp_path, [bad, bad], name="llama2-first")


LONG = [row("a"), row("word " * 40), row("b"), row("word " * 60)]


def lengths(tmp_path):
    prepared, _ = lead(tmp_path, LONG)
    return tokens(prepared)


def tokens(prepared):
    rows = prepared.train
    return [sum(e.num_tokens for e in rows.examples(r)) for r in range(rows.num_rows)]


def test_too_long_is_refused_with_names_and_remedies(tmp_path):
    sizes = lengths(tmp_path)
    prepared, _ = lead(tmp_path, LONG, max_length=max(sizes))
    assert prepared.train.num_rows == 4  # a row exactly at the limit is no longer than it
    with pytest.raises(DataError) as caught:
        lead(tmp_path, LONG, max_length=sizes[0], cache=True)
    error = caught.value
    assert "2 of 4 rows" in error.what
    assert f"rows.jsonl:2 ({sizes[1]:,})" in error.where
    for remedy in ("data.max_length", "'drop'", "'cut'"):
        assert remedy in error.remedy
    assert not (tmp_path / "cache").exists()  # nothing is written of what is refused


def test_too_long_is_dropped(tmp_path):
    sizes = lengths(tmp_path)
    prepared, said = lead(tmp_path, LONG, max_length=sizes[0], too_long="drop")
    assert tokens(prepared) == [sizes[0], 0, sizes[2], 0]
    assert prepared.ledgers[0].dropped["too long"].count == 2
    assert said[-1][1]["dropped"] == {"too long": 2}


def test_too_long_is_cut(tmp_path):
    sizes = lengths(tmp_path)
    whole, _ = lead(tmp_path, LONG)
    prepared, said = lead(tmp_path, LONG, max_length=sizes[0] + 5, too_long="cut")
    assert tokens(prepared) == [min(n, sizes[0] + 5) for n in sizes]
    assert prepared.ledgers[0].cut.count == said[-1][1]["cut"] == 2
    lost = whole.train.figures().trained_tokens - prepared.train.figures().trained_tokens
    assert prepared.ledgers[0].lost_trained_tokens == lost > 0
    prompt = int(np.flatnonzero(whole.train.examples(1)[0].weight)[0])
    with pytest.raises(DataError, match="all trained tokens cut: 4"):
        lead(tmp_path, LONG, max_length=prompt, too_long="cut")
    assert [e.input_ids.tolist() for e in prepared.train.examples(1)] == [
        e.input_ids[: sizes[0] + 5].tolist() for e in whole.train.examples(1)
    ]


def test_the_second_time_nothing_is_rendered(tmp_path):
    def rendered(rows, **how):
        counting = Counting(CHATML)
        prepared, said = lead(tmp_path, rows, cache=True, counting=counting, **how)
        return counting.count, prepared, said

    count, first, said = rendered(LONG)
    assert count > 0
    count, second, again = rendered(LONG)
    assert count == 0
    assert second.train.fingerprint == first.train.fingerprint
    assert second.ledgers[0] == first.ledgers[0]
    assert again == said
    for change in (
        {"train_on": "last"},
        {"too_long": "drop"},
        {"max_length": 999},
        {"name": "not-special"},
    ):
        assert rendered(LONG, **change)[0] > 0
        assert rendered(LONG, **change)[0] == 0
    assert rendered(LONG[:3])[0] > 0
    assert rendered(LONG)[0] == 0


def test_a_damaged_cache_is_made_again(tmp_path):
    first, _ = lead(tmp_path, LONG, cache=True)
    want = [[e.input_ids.tolist() for e in first.train.examples(r)] for r in range(4)]
    for kind in ("*.safetensors", "*.index"):
        (path,) = (tmp_path / "cache").glob(f"*/{kind}")
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
        again, _ = lead(tmp_path, LONG, cache=True)
        assert [[e.input_ids.tolist() for e in again.train.examples(r)] for r in range(4)] == want
        assert again.train.fingerprint == first.train.fingerprint


def test_the_cache_knows_content_not_names(tmp_path):
    lead(tmp_path, LONG, cache=True)
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copytree(tmp_path / "cache", moved / "cache")
    prepared, _ = lead(moved, LONG, cache=True)
    assert len(list((moved / "cache").iterdir())) == 1
    assert prepared.train.row_name(0) == f"{moved}/rows.jsonl:1"
    assert prepared.ledgers[0].file == f"{moved}/rows.jsonl"


def replies(dataset):
    return {
        tuple(e.input_ids.tolist()) for r in range(dataset.num_rows) for e in dataset.examples(r)
    }


@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 8), min_size=2, max_size=25),
    share=st.sampled_from([0.01, 0.3, 0.5, 0.99]),
)
def test_held_out_rows(tmp_path_factory, numbers, share):
    tmp_path = tmp_path_factory.mktemp("split")
    rows = [row(f"said {n}") for n in numbers]
    if len(set(numbers)) == 1:
        with pytest.raises(DataError, match="only one distinct row"):
            lead(tmp_path, rows, validation_split=share)
        return
    prepared, _ = lead(tmp_path, rows, validation_split=share)
    train, held = replies(prepared.train), replies(prepared.validation)
    assert train
    assert held
    assert not train & held
    assert prepared.train.num_rows + prepared.validation.num_rows == len(rows)
    again, _ = lead(tmp_path, rows[::-1], validation_split=share)
    assert replies(again.validation) == held  # whatever the order of the file


def test_a_held_out_share_is_about_that_share(tmp_path):
    prepared, _ = lead(tmp_path, [row(f"said {n}") for n in range(400)], validation_split=0.25)
    assert 60 < prepared.validation.num_rows < 140


def test_a_file_of_held_out_rows(tmp_path):
    other = tmp_path / "held.jsonl"
    other.write_text(json.dumps(row("one")) + "\n" + json.dumps(row("new")) + "\n")
    prepared, said = lead(tmp_path, [row("one"), row("two")], validation_path=str(other))
    assert (prepared.train.num_rows, prepared.validation.num_rows) == (2, 2)
    assert prepared.validation.row_name(1) == f"{other}:2"
    assert prepared.validation_ledgers[0].read == 2
    assert [told["file"] for event, told in said if event == "data"] == [
        f"{tmp_path}/rows.jsonl",
        str(other),
    ]
    (notice,) = [told for event, told in said if event == "notice"]
    assert notice["code"] == "held-out-overlap"
    assert "held.jsonl:1" in notice["message"]


def test_what_was_noticed_is_said(tmp_path):
    rows = [{**row("one"), "id": 1}, row("<|im_end|>"), row("")]
    _, said = lead(tmp_path, rows)
    notices = {told["code"]: told["message"] for event, told in said if event == "notice"}
    assert set(notices) == {"unknown-key", "control-text", "empty-assistant"}
    assert "id (1 row" in notices["unknown-key"]


def test_settings_that_cannot_be_meant(tmp_path):
    with pytest.raises(ConfigError, match="not a column of ours"):
        lead(tmp_path, [row("a")], columns={"x": "y"})


def test_no_file(tmp_path):
    tokenizer, template = family("byte-level")
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(DataError, match="no such file"):
            prepare(
                DataSection(path=str(tmp_path / "none.jsonl")),
                tokenizer=tokenizer,
                template=template,
                max_length=10,
                cache_dir=cache,
                say=lambda event, told: None,
            )
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_template_is_told_of(tmp_path):
    tokenizer = text_tokenizer(byte_level(), eos_token="<|im_end|>")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row("a")))
    said: list[tuple[str, dict]] = []
    prepare(
        DataSection(path=str(tmp_path / "rows.jsonl")),
        tokenizer=tokenizer,
        template=load_template(tokenizer),
        max_length=10**6,
        cache_dir=None,
        say=lambda event, told: said.append((event, told)),
    )
    assert [told["code"] for event, told in said if event == "notice"] == ["chatml"]
