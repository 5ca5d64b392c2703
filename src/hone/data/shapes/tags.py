"""Names of keys and roles in ShareGPT turns: the usual ones, and those that a user gives. It knows no rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from hone.errors import ConfigError, nearest

# LLaMA-Factory's names for ours.
_THEIRS: Final = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
    "observation_tag": "tool",
    "function_tag": "function",
}
# What rows write without being told: the role's usual names, and ours.
_USUAL: Final = {
    "user": ("human", "user"),
    "assistant": ("gpt", "assistant"),
    "system": ("system",),
    "tool": ("observation", "tool"),
    "function": ("function_call",),
}


@dataclass(frozen=True)
class Tags:
    """The keys that hold a turn's role and text, and which of our roles each name stands for.

    `function` is the role of a turn whose text is a tool call.
    """

    role: str = "from"
    content: str = "value"
    roles: Mapping[str, str] = field(
        default_factory=lambda: {name: ours for ours, names in _USUAL.items() for name in names}
    )
    given: tuple[str, ...] = ()
    """What the user named."""

    @classmethod
    def of(cls, told: Mapping[str, str]) -> Tags:
        """The tags of `data.tags`, in our words or LLaMA-Factory's. Raises ConfigError for others."""
        known = ("role", "content", *_USUAL)
        named: dict[str, str] = {}
        for key, value in told.items():
            ours = _THEIRS.get(key, key)
            if ours not in known:
                raise ConfigError(f"data.tags: {key!r} is no tag", remedy=nearest(key, known))
            if named.setdefault(ours, value) != value:
                raise ConfigError(
                    f"data.tags names {ours!r} twice: {named[ours]!r} and {value!r}",
                    remedy=f"keep one; {key!r} is another word for {ours!r}",
                )
        own = [named[ours] for ours in _USUAL if ours in named]
        if twice := [name for name in own if own.count(name) > 1]:
            raise ConfigError(
                f"data.tags gives the name {twice[0]!r} to two roles",
                remedy="give each role a name of its own",
            )
        usual = {name: ours for ours in _USUAL if ours not in named for name in _USUAL[ours]}
        roles = usual | {named[ours]: ours for ours in _USUAL if ours in named}
        return cls(
            named.get("role", cls.role), named.get("content", cls.content), roles, tuple(told)
        )
