"""The way through the questions: which comes next, back by one, what is missing. It asks nobody and prints nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from hone.errors import ConfigError, nearest
from hone.wizard.answers import Answers
from hone.wizard.interview import BY_KEY, CUSTOM, QUESTIONS
from hone.wizard.question import Question, Taken


@dataclass
class Flow:
    """Answers on their way to be complete. `asked` are the keys that were answered one by one, in that order."""

    answers: Answers = field(default_factory=Answers)
    asked: list[str] = field(default_factory=list[str])
    waiting: dict[str, Any] = field(default_factory=dict[str, Any])
    """Given unasked (flags, a file of answers), and checked when their turn comes: some hang on those before."""
    refused: set[str] = field(default_factory=set[str])
    """Must be asked, whatever was given: the user took it back."""

    def give(self, told: Mapping[str, Any]) -> None:
        """Take answers that were given unasked. Raises ConfigError with the nearest name for an unknown one."""
        for key in told:
            if key not in BY_KEY:
                raise ConfigError(f"there is no question {key!r}", remedy=nearest(key, BY_KEY))
        self.waiting |= told
        if set(told) & set(CUSTOM):
            self.waiting.setdefault("hyperparameters", "customize")

    def settle(self, *, defaults: bool) -> list[str]:
        """Answer all that needs no asking, up to the first question that does; what the user should know of it.

        `defaults` also takes every default. Raises HoneError for an answer that cannot be.
        """
        notes: list[str] = []
        while (question := self.open_question()) is not None:
            taken = self._unasked(question, defaults=defaults)
            if taken is None:
                break
            self.answers.keep(question.key, taken)
            notes += taken.notes
        return notes

    def open_question(self) -> Question | None:
        """The first that applies and has no answer; None when all have one."""
        for question in QUESTIONS:
            if question.key not in self.answers and question.applies(self.answers):
                return question
        return None

    def take(self, question: Question, raw: Any) -> Taken:
        """Take an answer that was asked for. Raises HoneError where it cannot be, and keeps nothing of it."""
        taken = question.read(raw, self.answers)
        if question.key == "overwrite" and taken.value == "no":
            self.answers.drop("script")
            self.asked = [key for key in self.asked if key != "script"]
            self.refused.add("script")
            return taken
        self.answers.keep(question.key, taken)
        self.asked.append(question.key)
        self.refused.discard(question.key)
        return taken

    def back(self) -> bool:
        """Forget the last answer that was asked for; False where there is none."""
        if not self.asked:
            return False
        last = self.asked.pop()
        # What stands behind it, given or by default, may hang on it: it is settled anew.
        keys = [question.key for question in QUESTIONS]
        for key in keys[keys.index(last) :]:
            self.answers.drop(key)
        return True

    def missing(self) -> list[Question]:
        """The open questions that have no default, as far as they can be known without the answers before them."""
        here = self.answers
        trial = Flow(Answers(here.place, dict(here.values), dict(here.counts)))
        found: list[Question] = []
        while (question := trial.open_question()) is not None:
            taken = Taken("")
            if question.key in self.waiting:
                taken = question.read(self.waiting[question.key], trial.answers)
            elif question.key not in CUSTOM:  # whose defaults hang on rows that may be missing
                value = question.default(trial.answers)
                if value is None or question.key in self.refused:
                    found.append(question)
                else:
                    taken = Taken(value)
            trial.answers.keep(question.key, taken)
        return found

    def refuse_open(self) -> NoReturn:
        """There is an open question, and nobody to ask: ConfigError that names the flags."""
        missing = self.missing()
        if [question.key for question in missing] == ["overwrite"]:
            raise ConfigError(
                "the script is there already",
                where=str(self.answers.path(self.answers.text("script"))),
                remedy="--force replaces it, --script FILE.py takes another name",
            )
        if missing:
            flags = ", ".join(question.flag for question in missing)
            raise ConfigError(
                f"nobody can be asked here, and these have no default: {flags}",
                remedy="give them as flags or in --answers FILE.yaml; --yes takes the defaults of the rest",
            )
        question = self.open_question()
        flag = "" if question is None else question.flag
        raise ConfigError(
            f"nobody can be asked here, and {flag} was not given",
            remedy="--yes takes its default, and that of every other question",
        )

    def settle_idle(self) -> list[str]:
        """What was given and has no effect beside the other answers: said where the user answered some of them,
        ConfigError where all was given."""
        known = {*self.answers.values, "overwrite"}  # to allow what is not needed changes nothing
        flags = [BY_KEY[key].flag for key in self.waiting if key not in known]
        if flags and not self.asked:
            raise ConfigError(
                f"{', '.join(flags)} would have no effect beside the other answers",
                remedy="leave it out",
            )
        return [f"{flag} has no effect beside the other answers" for flag in flags]

    def _unasked(self, question: Question, *, defaults: bool) -> Taken | None:
        if question.key in self.refused:
            return None
        if question.key in self.waiting:
            return question.read(self.waiting[question.key], self.answers)
        if question.is_asked and not defaults:
            return None
        value = question.default(self.answers)
        if value is None:
            return None
        return question.read(value if isinstance(value, list) else str(value), self.answers)
