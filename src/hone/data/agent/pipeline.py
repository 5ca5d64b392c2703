"""The steps of the agent recipe in their order, over one row. It knows no files but the two that it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from hone.data.agent.calls import as_json
from hone.data.agent.check import check_tools
from hone.data.agent.row import AgentRow, read_row
from hone.data.agent.specification import Domain, Specification
from hone.data.agent.steps import (
    Tell,
    check_turns,
    drop_trailing_user,
    fix_arguments,
    merge_turns,
    remove_think,
    to_hermes,
)
from hone.data.changes import Fate
from hone.errors import ConfigError, DataError, nearest

STEPS: Final = (
    "fix-arguments",
    "hermes",
    "check-tools",
    "remove-think",
    "system-prompt",
    "merge-turns",
    "drop-trailing-user",
    "check-turns",
)
"""In the order in which they run, whatever the order in which they were named."""

_TOOLS: Final = "{tools}"

Step = Callable[[AgentRow, Tell], AgentRow]


@dataclass(frozen=True)
class _Named:
    """A step's Tell: what it says, under the name of the step."""

    step: str
    fate: Fate

    def repair(self, reason: str, example: str = "") -> None:
        self.fate.repair(f"{self.step}: {reason}", example)

    def note(self, reason: str, example: str = "") -> None:
        self.fate.note(f"{self.step}: {reason}", example)


class Pipeline:
    """Leads a row through the steps that were asked for.

    Raises ConfigError when a step is unknown, or lacks or ignores the specification or the prompts.
    """

    def __init__(
        self,
        steps: Sequence[str] = STEPS,
        *,
        specification: Specification | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        for name in steps:
            if name not in STEPS:
                raise ConfigError(f"--steps: no step {name!r}", remedy=nearest(name, STEPS))
        self.steps = [name for name in STEPS if name in steps]
        if not self.steps:
            raise ConfigError("--steps: no step at all", remedy=f"allowed: {', '.join(STEPS)}")
        self._specification = specification
        self._prompts = prompts
        self._check_files()
        by_name: dict[str, Step] = {
            "fix-arguments": fix_arguments,
            "hermes": to_hermes,
            "check-tools": self._check_tools,
            "remove-think": remove_think,
            "system-prompt": self._put_prompt,
            "merge-turns": merge_turns,
            "drop-trailing-user": drop_trailing_user,
            "check-turns": check_turns,
        }
        self._steps = [(name, by_name[name]) for name in self.steps]

    def run(self, value: dict[str, Any], fate: Fate) -> dict[str, Any] | None:
        """The row at the end of the steps; None where it was dropped. Its fate knows what happened, by step."""
        name = "read"
        try:
            row, in_turn = read_row(value)
            if in_turn:
                fate.repair("read: the system turn became the system text")
            for name, step in self._steps:
                row = step(row, _Named(name, fate))
        except DataError as fault:
            fate.drop(f"{name}: {fault.what.partition('; found')[0]}", fault.what)
            return None
        fate.keep()
        return row.to_json()

    def _check_files(self) -> None:
        wants_tools = "check-tools" in self.steps
        wants_prompts = "system-prompt" in self.steps
        if wants_tools and self._specification is None:
            raise ConfigError(
                "the step check-tools needs the domain's tools", remedy="give --tools SPEC.json"
            )
        if wants_prompts and self._prompts is None:
            raise ConfigError(
                "the step system-prompt needs the prompts", remedy="give --prompts PROMPTS.json"
            )
        if self._prompts is not None and not wants_prompts:
            raise ConfigError("--prompts has no effect here", remedy="add the step system-prompt")
        if self._specification is not None and not (wants_tools or wants_prompts):
            raise ConfigError("--tools has no effect here", remedy="add the step check-tools")
        if self._specification is not None and self._prompts is not None:
            known = {one.name for one in self._specification.domains}
            for name in self._prompts:
                if name not in known:
                    raise ConfigError(
                        f"a prompt for {name!r}, which is no domain of --tools",
                        remedy=nearest(name, known),
                    )
        if self._specification is None and any(
            _TOOLS in text for text in (self._prompts or {}).values()
        ):
            raise ConfigError(
                f"a prompt asks for {_TOOLS}, and there are none", remedy="give --tools SPEC.json"
            )

    def _check_tools(self, row: AgentRow, tell: Tell) -> AgentRow:
        assert self._specification is not None
        return check_tools(row, self._specification, tell)

    def _put_prompt(self, row: AgentRow, tell: Tell) -> AgentRow:
        """The row with its domain's prompt as its system text."""
        prompts = self._prompts or {}
        # Without tools, a prompt's name is the word by which its domain is known.
        known = self._specification or Specification(
            tuple(Domain(name, (name.lower(),)) for name in prompts)
        )
        domain = known.domain_of(row.system)
        if domain is None or domain.name not in prompts:
            why = "the domain is unknown" if domain is None else "its domain has no prompt"
            tell.note(f"the system text stays: {why}")
            return row
        tools = "\n".join(as_json(tool) for tool in domain.listed)
        prompt = prompts[domain.name].replace(_TOOLS, tools)
        if prompt != row.system:
            tell.repair(f"the system text became the prompt of {domain.name!r}")
        return replace(row, system=prompt)
