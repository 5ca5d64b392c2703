"""A row's `loss_mask`: which of its messages are learned, said once for all. It knows no tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from hone.data.conversation import Message
from hone.data.values import kind, refuse
from hone.errors import nearest

_WORDS: Final = ("all", "none", "last_assistant")
_ROLES: Final = ("system", "user", "assistant", "tool")
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "all": (),
    "none": (),
    "last_assistant": (),
    "message_mask": ("mask",),
    "roles": _ROLES,
}
_REMEDY: Final = (
    '"all", "none", "last_assistant", a list of true and false, '
    '{"type": "message_mask", "mask": […]} or {"type": "roles", "assistant": true, …}'
)


def masked(
    messages: Sequence[Message], mask: object, where: str, *, own: int | None
) -> list[Message]:
    """The messages, each with the weight that the mask and its own say.

    `all` learns every message, whoever says it; `roles` learns assistants unless told otherwise. A
    mask that is a list speaks of the last `own` messages, which are those that the row lists. Raises
    DataError for a mask that is none of the known, and where a message's own weight contradicts it.
    """
    learned = _learned(messages, mask, where, own)
    told: list[Message] = []
    first = 0 if own is None else own - len(messages)  # what the row does not list stands before
    for i, (message, is_learned) in enumerate(zip(messages, learned, strict=True), first):
        if message.weight is not None and is_learned != (message.weight > 0):
            refuse(
                f"the mask {'learns' if is_learned else 'leaves out'} message {i}, "
                f"whose own weight is {message.weight:g}",
                where,
                "keep one of them",
            )
        told.append(
            message if message.weight is not None else replace(message, weight=float(is_learned))
        )
    return told


def _learned(
    messages: Sequence[Message], mask: object, where: str, own: int | None
) -> Sequence[bool]:
    """Whether each message is learned."""
    told = _with_type(mask, where)
    sort = told["type"]
    if sort == "message_mask":
        return _listed(told["mask"], len(messages), where, own)
    if sort == "last_assistant":
        last = max((i for i, m in enumerate(messages) if m.role == "assistant"), default=-1)
        return [i == last for i in range(len(messages))]
    if sort == "roles":
        flags = _flags(told, where)
        return [flags["system" if m.role == "developer" else m.role] for m in messages]
    return [sort == "all"] * len(messages)


def _with_type(mask: object, where: str) -> Mapping[str, Any]:
    """The mask as an object with a known type and no other keys than that type has."""
    if isinstance(mask, str) and mask in _WORDS:
        return {"type": mask}
    if isinstance(mask, list):
        return {"type": "message_mask", "mask": mask}
    if isinstance(mask, str):
        refuse(f"the mask {mask!r} is not known", where, nearest(mask, _WORDS))
    if not isinstance(mask, dict):
        refuse(f"a mask is a word, a list or an object; found {kind(mask)}", where, _REMEDY)
    told = cast("dict[str, Any]", mask)
    sort = told.get("type")
    if not isinstance(sort, str) or sort not in _KEYS:
        refuse(
            f"the type of the mask is not known; found {kind(sort)}",
            f"{where}/type",
            nearest(sort, _KEYS) if isinstance(sort, str) else _REMEDY,
        )
    for key in told:
        if key != "type" and key not in _KEYS[sort]:
            allowed = ("type", *_KEYS[sort])
            refuse(f"a mask of type {sort!r} has no {key!r}", where, nearest(key, allowed))
    if sort == "message_mask" and "mask" not in told:
        refuse("a mask of type 'message_mask' has no 'mask'", where, _REMEDY)
    return told


def _listed(mask: object, num_messages: int, where: str, own: int | None) -> list[bool]:
    if own is None:
        refuse(
            "rows of this shape list no messages that a mask could speak of",
            where,
            'use "last_assistant" or {"type": "roles", …}, or write the row as messages',
        )
    if not isinstance(mask, list):
        refuse(f"a list of true and false is wanted; found {kind(mask)}", where)
    flags = cast("list[Any]", mask)
    for i, flag in enumerate(flags):
        if not isinstance(flag, bool):
            refuse(
                f"a mask holds true and false; found {kind(flag)} at place {i}",
                where,
                "write true or false; a part of a weight goes under the message's own 'weight'",
            )
    if len(flags) != own:
        refuse(
            f"the mask has {len(flags)} entries and the row {own} messages",
            where,
            "give one entry for each message",
        )
    return [False] * (num_messages - own) + cast("list[bool]", flags)


def _flags(told: Mapping[str, Any], where: str) -> dict[str, bool]:
    flags = {role: role == "assistant" for role in _ROLES}
    for role in _ROLES:
        flag = told.get(role)
        if flag is None:
            continue
        if not isinstance(flag, bool):
            refuse(f"true or false is wanted; found {kind(flag)}", f"{where}/{role}")
        flags[role] = flag
    return flags
