"""Every code that a row's way can leave has a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import hone.data
from hone.data.ledger import Ledger
from hone.data.road import sentences

_ADDED = re.compile(r'(?:remarks\.add|remarks\.append)\(\s*"([a-z-]+)"|yield "([a-z-]+)"')


def test_every_code_has_its_sentence():
    sources = Path(hone.data.__file__).parent.rglob("*.py")
    codes = {a or b for path in sources for a, b in _ADDED.findall(path.read_text("utf-8"))}
    assert {"turn-order", "control-text", "unknown-key", "other-roles-left-out"} <= codes
    for code in codes:
        ledger = Ledger(file="rows.jsonl")
        ledger.notice(f"{code}:detail", 1)
        ((name, text),) = sentences(ledger)
        assert name == code
        assert not text.startswith(code), f"{code} has no sentence"


def test_the_detail_is_in_the_sentence():
    ledger = Ledger(file="rows.jsonl")
    ledger.notice("finish-reason:length", 7)
    ((_, text),) = sentences(ledger)
    assert "(length)" in text
    assert "rows.jsonl:7" in text
