"""The wizard on a terminal, or with nobody to ask: every question, the script, and its run. It decides nothing."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hone.cli.asking import Asker, GoBack
from hone.cli.lines import duration_text
from hone.cli.printable import printable
from hone.errors import EXIT_CODES, EnvironmentFault, HoneError

if TYPE_CHECKING:
    from hone.wizard.answers import Answers
    from hone.wizard.flow import Flow
    from hone.wizard.progress import History
    from hone.wizard.question import Question

_FAILED: Final = 1


@dataclass
class Talk:
    """A wizard that asks on a terminal, or not at all."""

    told: dict[str, Any]
    how: str | None
    defaults: bool
    is_silent: bool
    asker: Asker = field(default_factory=Asker)

    def go(self) -> int:
        """The whole way; the exit code."""
        from hone.wizard.answers import Answers
        from hone.wizard.finish import write_script
        from hone.wizard.flow import Flow
        from hone.wizard.forecast import forecast
        from hone.wizard.memory import here
        from hone.wizard.outlook import outlook

        flow = Flow(Answers(here()))
        flow.give(self.told)
        self._answer(flow)
        for line in [*flow.settle_idle(), *outlook(flow.answers), *forecast(flow.answers)]:
            self.asker.say(line)
        path = write_script(flow.answers)
        self.asker.say(f"wrote {path}")
        return self._offer(flow.answers)

    def _answer(self, flow: Flow) -> None:
        """Answer every question, and ask those that need it."""
        greeted = False
        while True:
            for note in flow.settle(defaults=self.defaults):
                self.asker.say(note)
            question = flow.open_question()
            if question is None:
                return
            if self.is_silent:
                flow.refuse_open()
            if not greeted:
                self.asker.greet()
                greeted = True
            self._ask(flow, question)

    def _ask(self, flow: Flow, question: Question) -> None:
        """One question, until it is answered or the user goes back."""
        while True:
            try:
                said = self.asker.ask(question, flow.answers)
                taken = flow.take(question, said)
            except GoBack:
                if not flow.back():
                    self.asker.say("this is the first question")
                return
            except HoneError as error:
                self.asker.complain(error)
            except (KeyboardInterrupt, EOFError):
                print()
                self.asker.say("left; nothing was written")
                raise KeyboardInterrupt from None
            else:
                for note in taken.notes:
                    self.asker.say(note)
                return

    def _offer(self, answers: Answers) -> int:
        """Offer to run the script; its exit code, or 0."""
        from hone.wizard.advice import before_run
        from hone.wizard.launch import commands

        ways = commands(answers.text("script"))
        for line in before_run(answers):
            self.asker.say(line)
        if self.how is None and self.is_silent:
            self.how = "no"
        while self.how is None:
            self.how = self._asked_how(answers, ways)
        if self.how == "no":
            self.asker.say("run it with:")
            for command in ways.values():
                print(f"  {printable(shlex.join(command))}")
            return 0
        return self._run(answers, ways[self.how])

    def _asked_how(self, answers: Answers, ways: dict[str, list[str]]) -> str | None:
        from hone.wizard.question import Option, Question
        from hone.wizard.reading import choice

        options = [Option("no", "not now")]
        options += [Option(way, shlex.join(command)) for way, command in ways.items()]
        question = Question(
            "run",
            "--run",
            "Run it now?",
            choice("no", *ways),
            kind="choice",
            options=lambda _: options,
            default=lambda _: "no",
        )
        try:
            return str(self.asker.ask(question, answers))
        except GoBack:
            self.asker.say("the script is written; answer here, or leave with Ctrl-C")
            return None
        except EOFError:
            raise KeyboardInterrupt from None

    def _run(self, answers: Answers, command: list[str]) -> int:
        from hone.wizard.advice import after_run
        from hone.wizard.launch import launch
        from hone.wizard.progress import History

        history = History.of(answers)
        try:
            ended = launch(command, answers.place.folder, lambda: self._goes_on(answers, history))
        except OSError as error:
            raise EnvironmentFault(
                f"cannot start {command[0]}: {error.strerror or error}",
                remedy=f"run it yourself: {shlex.join(command)}",
            ) from error
        for line in after_run(answers, ended):
            self.asker.say(line)
        if ended.code == 0:
            self.asker.say(f"done in {duration_text(ended.seconds)}")
            return 0
        return ended.code if ended.code in EXIT_CODES else _FAILED

    def _goes_on(self, answers: Answers, history: History) -> bool:
        """Two minutes are over: say how far it is, and ask, where somebody is there, whether it goes on."""
        from hone.wizard.outlook import progress

        self.asker.say(progress(answers, *history.steps()))
        if self.is_silent:
            return True
        try:
            return self.asker.agrees("Let it go on?", default=True)
        except (GoBack, EOFError):
            return True
