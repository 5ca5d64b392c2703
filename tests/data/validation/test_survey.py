"""What a survey finds: twins, near twins, odd characters, lengths and what the limit takes."""

from __future__ import annotations

import random

import pytest

from hone.data.control import strings_in
from hone.data.road import remark_sentence
from hone.data.validation.advice import explained
from hone.data.validation.near import NearTexts
from hone.data.validation.oddities import KINDS, form_of, oddities
from hone.data.validation.survey import Histogram, Measure, Survey
from tests.data.rows import A, U, read

ODD = {
    "zero-width": "a\u200bb",
    "direction": "a\u202eb",
    "private-use": "a\ue000b",
    "control": "a\x00b",
    "unassigned": "a\ufdd0b",
    "replacement": "a\ufffdb",
    "line-separator": "a\u2028b",
    "surrogate": "a\ud800b",
}


def words(seed: int, count: int = 120) -> list[str]:
    draw = random.Random(seed)
    return [f"w{draw.randrange(5000)}" for _ in range(count)]


def pairs(texts: list[str]) -> list[tuple[int, int]]:
    near = NearTexts()
    for label, text in enumerate(texts):
        near.add(label, text)
    return list(near.pairs())


def test_texts_that_differ_in_a_word_are_near_and_others_are_not() -> None:
    first, second = words(1), words(2)
    changed = [*first]
    changed[40] = "other"
    half = [*first[:60], *words(3, 60)]
    texts = [" ".join(one) for one in (first, second, changed, half)]
    assert pairs(texts) == [(2, 0)]
    assert pairs([texts[0], texts[0].upper().replace(" ", ",\n ")]) == [(1, 0)]


def test_short_and_empty_texts_are_compared_whole() -> None:
    assert pairs(["yes", "no", "Yes!", "", ""]) == [(2, 0), (4, 3)]
    assert pairs([]) == []
    assert pairs(["?", "!"]) == []


def test_how_many_near_pairs_are_found() -> None:
    """Of texts that share nine in ten of their runs all are found; of those that share half, none."""
    found = 0
    for seed in range(40):
        first = words(seed, 200)
        changed = [*first]
        for place in (30, 90, 150):
            changed[place] = "other"
        found += len(pairs([" ".join(first), " ".join(changed)]))
    assert found == 40


def test_a_long_text_is_compared_all_the_same() -> None:
    text = " ".join(words(5, 30_000))
    assert pairs([text, text + " end"]) == [(1, 0)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_odd_character_is_seen(kind: str) -> None:
    assert oddities(ODD[kind]) == [kind]
    assert explained(f"unicode-{kind}")[0].startswith("the text has ")


@pytest.mark.parametrize("text", ["plain\n\ttext\r\n", "é 東京", "👩\u200d👧", "नि\u200dष", ""])
def test_usual_text_is_not_odd(text: str) -> None:
    assert oddities(text) == []


def test_normal_forms_are_told_apart() -> None:
    forms = [form_of(one) for one in ("a", "\u00e9", "e\u0301", "\u00e9e\u0301", "東京")]
    assert forms == ["", "C", "D", "mixed", ""]


def test_a_histogram_counts_every_number_once() -> None:
    found = Histogram()
    for value in (0, 1, 2, 3, 4, 5, 1024, 1025):
        found.add(value)
    told = found.to_json()
    assert [(one["up_to"], one["rows"]) for one in told["bins"]] == [
        (1, 2),
        (2, 1),
        (4, 2),
        (8, 1),
        (1024, 1),
        (2048, 1),
    ]
    assert (told["least"], told["most"], told["sum"], told["count"]) == (0, 1025, 2064, 8)
    assert Histogram().to_json() == {"count": 0, "bins": []}


def survey(rows: list[dict[str, object]], held: list[dict[str, object]] | None = None) -> Survey:
    seen = Survey("characters")
    for line, row in enumerate(rows, 1):
        seen.add("messages", read(row, line=line), Measure(4, 4, 2))
    if held is not None:
        seen.compare(read(row, line=line) for line, row in enumerate(held, 1))
    seen.finish()
    return seen


def lines(seen: Survey, code: str) -> list[int]:
    return seen.findings[code].lines if code in seen.findings else []


def talk(question: list[str], answer: str = "ho") -> dict[str, object]:
    return {"messages": [{**U, "content": " ".join(question)}, {**A, "content": answer}]}


def test_twins_and_overlap_are_told_by_line() -> None:
    near = [*words(1)]
    near[3] = "other"
    rows = [talk(words(1)), talk(words(2)), talk(words(1)), talk(near)]
    held = [talk(words(9)), talk(words(2)), talk([*words(1), "end"])]
    seen = survey(rows, held)
    assert lines(seen, "duplicate") == [3]
    assert lines(seen, "near-duplicate") == [4]
    assert lines(seen, "overlap") == [2]
    assert lines(seen, "near-overlap") == [3]


def test_what_a_user_should_look_at_is_told_by_line() -> None:
    mixed = [{**U, "content": "e\u0301"}, {**A, "content": "\u00e9\u200b"}]
    seen = survey(
        [{"messages": [U, A, U]}, {"messages": mixed}, {"messages": [U, {**A, "content": ""}]}]
    )
    assert lines(seen, "no-last-reply") == [1]
    assert lines(seen, "unicode-zero-width") == [2]
    assert lines(seen, "empty-assistant") == [3]
    assert seen.findings["mixed-form"].count == 1
    assert seen.roles == {"user": 4, "assistant": 3}
    assert strings_in(seen.turns.to_json())


def test_every_finding_has_words_and_advice() -> None:
    for code in (
        "duplicate",
        "unknown-key:x",
        "turn-order",
        "split-row",
        "control-text",
        "bare-tool",
    ):
        what, advice = explained(code)
        assert what not in ("", code)
        assert advice
    assert "x" in explained("unknown-key:x")[0]
    assert remark_sentence("unknown-key:x").endswith("x")
