"""Measures of words: equal to the libraries where they overlap, and true where those know no script."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics.bleu import BLEU

from hone.errors import ConfigError
from hone.recipes.evaluation import wording
from tests.recipes.evaluation.asked import answer, question

ASCII = st.text(st.characters(max_codepoint=127), max_size=40)
SENTENCES = st.lists(st.text("ab cd .,", min_size=1, max_size=30), min_size=1, max_size=6)


@given(ASCII)
def test_words_of_ascii_are_those_of_rouge_score(text: str) -> None:
    assert wording.words(text) == DefaultTokenizer(use_stemmer=False).tokenize(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Straße, ÉTÉ!", ["straße", "été"]),
        ("今天是周一。", ["今", "天", "是", "周", "一"]),
        ("GPU很快", ["gpu", "很", "快"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("cafe\u0301", ["café"]),
    ],
)
def test_words_of_other_scripts(text: str, words: list[str]) -> None:
    assert wording.words(text) == words


@given(ASCII, ASCII)
def test_rouge_l_is_the_library_s(reference: str, text: str) -> None:
    wanted = RougeScorer(["rougeL"]).score(reference, text)["rougeL"].fmeasure
    measure = wording.rouge_l()
    assert measure.score(measure.take(question(reference), answer(text))) == wanted


def test_rouge_l_knows_a_script_that_the_library_alone_does_not() -> None:
    assert RougeScorer(["rougeL"]).score("今天是周一", "今天是周一")["rougeL"].fmeasure == 0
    measure = wording.rouge_l()
    assert measure.score(measure.take(question("今天是周一"), answer("今天是周一"))) == 1


@given(ASCII, ASCII)
def test_token_f1_is_symmetric_and_1_only_for_the_same_words(one: str, other: str) -> None:
    score = wording.token_f1(one, other)
    assert score == wording.token_f1(other, one)
    assert 0 <= score <= 1
    assert (score == 1) == (sorted(wording.words(one)) == sorted(wording.words(other)))


def test_token_f1_by_hand() -> None:
    assert wording.token_f1("the red cat sat", "a red cat") == pytest.approx(2 * 2 / 7)


@given(SENTENCES, st.data())
def test_bleu_of_summed_statistics_is_the_corpus_s(
    references: list[str], data: st.DataObject
) -> None:
    texts = [data.draw(st.text("ab cd .,", max_size=30)) for _ in references]
    wanted = BLEU(tokenize="13a").corpus_score(texts, [references]).score
    measure = wording.bleu(references)
    sums = np.zeros(measure.width)
    for reference, text in zip(references, texts, strict=True):
        sums += np.asarray(measure.take(question(reference), answer(text)))
    if sums[-1] > 0:
        assert measure.value(sums) == pytest.approx(wanted)


def test_bleu_cuts_chinese_into_characters() -> None:
    measure = wording.bleu(["今天是周一我们开会"])
    stats = measure.take(question("今天是周一我们开会"), answer("今天是周一我们开会吗"))
    assert measure.value(np.asarray(stats)) > 80  # as one word it would be near 0
    assert measure.score(stats) is None, "a measure of corpora"
    assert "tok:zh" in measure.details()["sacrebleu_signature"]


def test_chrf_and_exact_match() -> None:
    exact, chrf = wording.exact_match(), wording.chrf()
    same, near = answer(" a  cat\n"), answer("a cap")
    asked = question("a cat")
    assert exact.score(exact.take(asked, same)) == 1
    assert exact.score(exact.take(asked, near)) == 0
    assert chrf.score(chrf.take(asked, answer("a cat"))) == pytest.approx(100)
    assert 0 < chrf.score(chrf.take(asked, near)) < 100


def test_a_pattern_with_a_group_compares_what_it_takes_last() -> None:
    measure = wording.regex(r"#### (-?\d+)")
    asked = question("first #### 1 then\n#### 18")
    assert measure.asks(asked)
    assert not measure.asks(question("no number"))
    assert measure.score(measure.take(asked, answer("…\n#### 18"))) == 1
    assert measure.score(measure.take(asked, answer("#### 18 no, #### 1"))) == 0
    assert measure.score(measure.take(asked, answer("18"))) == 0


def test_a_pattern_without_a_group_must_be_found() -> None:
    measure = wording.regex(r"^\d{4}$")
    assert measure.asks(question())
    assert measure.score(measure.take(question(), answer("in\n2031"))) == 1
    assert measure.score(measure.take(question(), answer("in 2031"))) == 0


def test_a_broken_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="no regular expression"):
        wording.regex("(")
