"""Measures of an answer's words beside the reference's: exact match, token F1, ROUGE-L, BLEU, chrF, a regular expression.

ROUGE is rouge-score's, BLEU and chrF sacrebleu's; both are pure libraries, and fetch nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from hone.errors import ConfigError
from hone.recipes.evaluation.answer import Answer
from hone.recipes.evaluation.bootstrap import Floats
from hone.recipes.evaluation.measure import Measure, scored
from hone.recipes.evaluation.question import Question
from hone.recipes.score import normalised

_ASCII_WORD: Final = re.compile(r"[a-z0-9]+")
# Scripts that write no spaces between words: each character stands for itself.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_UNSPACED_LETTER: Final = re.compile(rf"[{_UNSPACED}\U00020000-\U0003ffff]")
_CHINESE: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_ORDER: Final = 4  # of BLEU's n-grams


def words(text: str) -> list[str]:
    """Lower-cased runs of letters, marks and digits; in scripts without spaces each character.

    Of ASCII text the words are those of rouge-score's own tokenizer, which knows no other script.
    """
    text = unicodedata.normalize("NFC", text).lower()
    if text.isascii():
        return _ASCII_WORD.findall(text)
    spread = _UNSPACED_LETTER.sub(r" \g<0> ", text)
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in spread)
    return "".join(kept).split()


def token_f1(reference: str, answer: str) -> float:
    """F1 of the words that both have in common, each as often as it stands in both (Rajpurkar et al., 2016, without
    their rule for English articles); 1 where neither has any."""
    ours, theirs = Counter(words(answer)), Counter(words(reference))
    if not ours or not theirs:
        return float(ours == theirs)
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total())


def exact_match() -> Measure:
    """Whether answer and reference are the same text but for the spaces between words."""
    return Measure(
        "exact_match",
        "share of answers that are the reference, however their words are spaced",
        has_text,
        scored(lambda q, a: normalised(q.reference.text) == normalised(a.text)),
    )


def token_f1_measure() -> Measure:
    """Mean token F1."""
    return Measure(
        "token_f1",
        "F1 of the words of answer and reference (lower case, without punctuation), mean over answers",
        has_text,
        scored(lambda q, a: token_f1(q.reference.text, a.text)),
    )


def rouge_l() -> Measure:
    """Mean ROUGE-L F-measure (Lin, 2004) over `words`."""
    from rouge_score.rouge_scorer import RougeScorer  # pyright: ignore[reportMissingTypeStubs]

    scorer: Any = RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_Words())

    def score(question: Question, answer: Answer) -> float:
        return float(scorer.score(question.reference.text, answer.text)["rougeL"].fmeasure)

    about = "ROUGE-L: F-measure of the longest common subsequence of words, mean over answers (rouge-score)"
    return Measure("rouge_l", about, has_text, scored(score))


class _Words:
    """`words` as rouge-score wants a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        """The words."""
        return words(text)


def bleu(references: Sequence[str]) -> Measure:
    """Corpus BLEU (Papineni et al., 2002), 0 to 100; the tokenizer follows from the references' script."""
    from sacrebleu.metrics.bleu import BLEU

    letters = "".join(references)
    chinese = len(_CHINESE.findall(letters))
    unspaced = len(_UNSPACED_LETTER.findall(letters))
    half = sum(c.isalnum() for c in letters) / 2
    tokenize = "13a" if unspaced <= half else ("zh" if chinese > half else "char")
    scorer: Any = BLEU(tokenize=tokenize)

    def take(question: Question, answer: Answer) -> list[float]:
        found = scorer.corpus_score([answer.text], [[question.reference.text]])
        return [*found.counts, *found.totals, found.sys_len, found.ref_len]

    def value(sums: Floats) -> float:
        counts, totals = sums[:_ORDER], sums[_ORDER : 2 * _ORDER]
        if sums[-1] <= 0:
            return float("nan")
        made: Any = BLEU.compute_bleu(
            [int(n) for n in counts],
            [int(n) for n in totals],
            int(sums[-2]),
            int(sums[-1]),
            smooth_method="exp",  # as its own corpus score does
        )
        return float(made.score)

    return Measure(
        "bleu",
        f"corpus BLEU, 0 to 100, tokens of {tokenize!r} (sacrebleu)",
        has_text,
        take,
        width=2 * _ORDER + 2,
        value=value,
        top=100.0,
        by_answer=False,
        details=lambda: {"sacrebleu_signature": str(scorer.get_signature())},
    )


def has_four_words(references: Sequence[str]) -> bool:
    """Whether any reference is long enough for BLEU, which counts runs of four words: of shorter ones alone it is 0."""
    return any(len(words(text)) >= _ORDER for text in references)


def chrf() -> Measure:
    """Mean chrF (Popovic, 2015), 0 to 100."""
    from sacrebleu.metrics.chrf import CHRF

    scorer: Any = CHRF()

    def score(question: Question, answer: Answer) -> float:
        return float(scorer.sentence_score(answer.text, [question.reference.text]).score)

    about = "chrF: F2 of character n-grams, 0 to 100, mean over answers (sacrebleu)"
    return Measure("chrf", about, has_text, scored(score), top=100.0)


def regex(pattern: str) -> Measure:
    """Whether what `pattern` takes out of the answer is what it takes out of the reference.

    With a group, the first group of the last match of each is compared; without one, the answer need only match.
    Raises ConfigError for a pattern that is none.
    """
    try:
        made = re.compile(pattern, re.DOTALL | re.MULTILINE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"--regex is no regular expression: {error}",
            where=repr(pattern),
            remedy=r"e.g. '#### (-?\d+)'",
        ) from error
    if not made.groups:
        about = f"share of answers in which {pattern!r} is found"
        return Measure(
            "regex", about, lambda _: True, scored(lambda _, a: made.search(a.text) is not None)
        )

    def last(text: str) -> str | None:
        found = list(made.finditer(text))
        said: str | None = found[-1][1] if found else None
        return None if said is None else normalised(said)

    def asks(question: Question) -> bool:
        return last(question.reference.text) is not None

    about = f"share of answers in which {pattern!r} finds last what it finds last in the reference"
    return Measure(
        "regex", about, asks, scored(lambda q, a: last(a.text) == last(q.reference.text))
    )


def has_text(question: Question) -> bool:
    """Whether the reference says something beside its calls."""
    return bool(question.reference.text)
