"""The report: whole, with nothing of the user's taken for markup, and nothing fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from hone.infer.call_formats import Call
from hone.recipes.evaluation import plot
from hone.recipes.evaluation.bootstrap import Interval
from hone.recipes.evaluation.page import Report, number, page
from hone.recipes.evaluation.result import Sample, Taken
from tests.recipes.evaluation.asked import answer, question

EVIL = "<script>alert(1)</script><img src=\"http://evil/x.png\" onerror='a()'>"


class Read(HTMLParser):
    """Tags and attributes of a page; raises where a tag that must be closed is not."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def taken(name: str, value: float, *, top: float | None = 1.0, verdict: float = 0.2) -> Taken:
    return Taken(
        name, f"about {EVIL}", "higher" if top else "lower", top, 3, 3,
        Interval(value, value - 0.1, value + 0.1), Interval(value - verdict, 0.0, value),
        Interval(verdict, verdict - 0.1, verdict + 0.1),
    )  # fmt: skip


def report() -> Report:
    asked = question(EVIL, asks=EVIL, row=f"{EVIL}:1")
    got = answer(EVIL * 200, Call(EVIL, {EVIL: EVIL}), finish="length")
    sample = Sample(
        asked,
        {"tuned": got, "base": answer("")},
        {"tuned": {"exact_match": 0.0}, "base": {}},
        {},
        1.0,
    )
    return Report(
        title=EVIL, subtitle=EVIL, facts={EVIL: EVIL},
        taken=[taken("exact_match", 0.5), taken("loss", 2.0, top=None), taken("chrf", 40, top=100)],
        by_source={EVIL: [taken("loss", 1.0, top=None)]},
        row_losses={"tuned": [0.5, 1.0], "base": [1.0, 2.0]},
        misses=[sample], missed=1, notices=[EVIL, "right\u202eleft"], left_out={"judge": EVIL}, how=EVIL,
        tasks={"tuned": {f"{EVIL}/acc": 0.5}},
    )  # fmt: skip


def test_nothing_of_the_users_is_markup() -> None:
    text = page(report())
    read = Read(text)
    assert read.open == []
    assert not {"script", "img", "iframe", "object", "link"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert EVIL not in text
    assert "\u202e" not in text
    assert r"\u202e" in text


def test_nothing_is_fetched() -> None:
    text = page(report())
    read = Read(text)
    assert not [v for n, v in read.attributes if n in ("src", "href", "xlink:href", "action")]
    assert "url(" not in text.partition("</style>")[0]
    assert "default-src 'none'" in text


def test_measures_plots_and_misses_are_there() -> None:
    text = page(report())
    assert text.count("<svg") == 3
    assert "exact_match" in text
    assert "better" in text
    assert "(empty)" in text
    assert "cut at the limit of tokens" in text


def test_plots_of_nothing_are_nothing() -> None:
    assert plot.scores([]) == plot.differences([]) == plot.histogram({}) == ""
    assert plot.histogram({"tuned": [float("nan")]}) == ""


@pytest.mark.parametrize("losses", [[0.0], [1.5] * 4, list(np.linspace(0, 9, 50))])
def test_a_histogram_counts_every_row_once(losses: list[float]) -> None:
    svg = plot.histogram({"tuned": losses})
    counts = re.findall(r"<title>tuned: (\d+) rows", svg)
    assert sum(map(int, counts)) == len(losses)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.12345, "0.1235"), (12.345, "12.35"), (1234.5, "1,234.5"), (1e7, "1e+07")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text
