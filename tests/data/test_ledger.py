"""The counts add up, and survive being stored."""

from __future__ import annotations

import json

from hone.data.ledger import LINES_KEPT, Ledger
from hone.data.road import sentences


def test_the_sentence_adds_up():
    ledger = Ledger(file="a.jsonl", read=200, kept=197)
    ledger.drop("too long", 4)
    ledger.drop("nothing to train on", 9)
    ledger.drop("too long", 11)
    assert (
        ledger.sentence() == "read 200 = kept 197 + dropped 3 (too long: 2, nothing to train on: 1)"
    )
    assert ledger.num_dropped == 3
    assert Ledger(read=2, kept=2).sentence() == "read 2 = kept 2 + dropped 0"


def test_names_are_few_and_counts_whole():
    ledger = Ledger(file="a.jsonl")
    for line in range(1, 100):
        ledger.notice("empty-assistant", line)
    tally = ledger.notices["empty-assistant"]
    assert (tally.count, len(ledger.names(tally))) == (99, LINES_KEPT)
    assert ledger.names(tally)[0] == "a.jsonl:1"


def test_storing():
    ledger = Ledger(
        file="a:b.jsonl", shape="turns", read=3, kept=1, examples=1, tokens=5, trained_tokens=2
    )
    ledger.drop("x: y", 2)
    ledger.cut.add(3)
    ledger.notice("blank-lines:2")
    ledger.notice("unknown-key:id", 1)
    told = json.loads(json.dumps(ledger.to_json()))
    assert told["dropped"] == {"x: y": {"count": 1, "rows": ["a:b.jsonl:2"]}}
    assert told["sentence"] == "read 3 = kept 1 + dropped 1 (x: y: 1)"
    assert Ledger.from_json(told) == ledger


def test_notices_in_sentences():
    ledger = Ledger(file="a.jsonl")
    ledger.notice("blank-lines:2")
    ledger.notice("unknown-key:id", 3)
    ledger.notice("unknown-key:id", 7)
    assert sentences(ledger) == [
        ("blank-lines", "2 blank lines were skipped"),
        ("unknown-key", "a key that nothing here reads was ignored: id (2 rows, first a.jsonl:3)"),
    ]
