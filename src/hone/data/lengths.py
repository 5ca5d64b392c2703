"""What is left of a row that is longer than the limit, by each policy. It knows Examples and turns, no files.

`cut` keeps the beginning. `share` divides the room between contexts and answers, pair by pair. `oldest` leaves out
whole turns and renders the rest anew. What remains of an answer is always its beginning, so no end is learned where
the answer does not end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from hone.data.conversation import Content, Conversation, Message
from hone.data.example import Example

Policy = Literal["oldest", "cut", "share"]
Render = Callable[[Conversation], Sequence[Example]]
"""The Examples of a Conversation; none where the template refuses it or nothing is trained."""
Mask = NDArray[np.bool_]

TOO_LONG: Final = "too long"
ALL_CUT: Final = "all trained tokens cut"
STILL_TOO_LONG: Final = "too long even without its oldest turns"
NO_TURNS: Final = "too long, and has no turns to leave out"

_ALWAYS: Final = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of each Example of a row, in order; None where nothing trained is. `dropped` says why the
    row is not trained, or is empty."""

    examples: tuple[Example | None, ...]
    dropped: str = ""


def shorten(
    policy: Policy, content: Content, examples: Sequence[Example], limit: int, render: Render
) -> Left:
    """What `policy` leaves of the Examples of `content` within `limit` tokens each.

    `render` is asked by `oldest` alone. A row that fits is left as it is.
    """
    if all(one.num_tokens <= limit for one in examples):
        return Left(tuple(examples))
    if policy == "oldest":
        return _without_oldest(content, examples, limit, render)
    shares = policy == "share"
    short = [
        one
        if one.num_tokens <= limit
        else chosen(one, share_mask(one, limit))
        if shares
        else one.cut(limit)
        for one in examples
    ]
    return _left([one if one.num_trained_tokens else None for one in short], ALL_CUT)


def chosen(example: Example, mask: Mask) -> Example:
    """The tokens of an Example that a mask [T] names."""
    return Example(example.input_ids[mask], example.weight[mask], example.origin)


def share_mask(example: Example, limit: int) -> Mask:
    """[T] which tokens LLaMA-Factory's proportional rule keeps within `limit`.

    A pair is a context up to a trained span, and that span. Pairs are taken in order; of the first that
    does not fit `fair_share` of the room is kept, and nothing follows it. The context keeps its beginning,
    as it does there; the answer keeps its beginning too.
    """
    mask: Mask = np.zeros(example.num_tokens, dtype=np.bool_)
    room, at = limit, 0
    for start, stop in [*example.trained_spans(), (example.num_tokens, example.num_tokens)]:
        source, target = fair_share(start - at, stop - start, room)
        if stop > start and not target:
            break  # a context of which nothing is learned
        mask[at : at + source] = True
        mask[start : start + target] = True
        room -= source + target
        at = stop
    return mask


def fair_share(source: int, target: int, room: int) -> tuple[int, int]:
    """How many tokens of a context and of its answer are kept in `room` tokens."""
    if 2 * target < room:
        most = room
    elif 2 * source < room:
        most = room - source
    else:
        most = room * target // max(1, source + target)
    kept = min(most, target)
    return min(max(room - kept, 0), source), kept


def kept_mask(policy: str, uncut: Example, left: Example | None, limit: int) -> Mask:
    """[T] which tokens of an uncut Example are among those left of it.

    `oldest` renders anew: there the beginning and the end that both have in common are named.
    """
    mask: Mask = np.zeros(uncut.num_tokens, dtype=np.bool_)
    if left is None:
        return mask
    if left is uncut:
        return ~mask
    if policy == "share":
        return share_mask(uncut, limit)
    before = _common(uncut, left)
    after = 0
    if policy == "oldest":
        after = _common(_reversed(uncut), _reversed(left))
        before = min(before, left.num_tokens - after)
        mask[uncut.num_tokens - after :] = True
    mask[:before] = True
    return mask


def groups_to_leave_out(messages: Sequence[Message]) -> list[list[int]]:
    """Places of messages that may be left out together, in the order in which they go.

    First whole exchanges, each from a user's turn up to the next; then, within the last exchange that is
    trained, what stands between its user's turn and its reply. System messages, that user's turn, that reply
    and what follows stay. A tool's result and the call that it answers are never parted.
    """
    last = max((i for i, one in enumerate(messages) if _is_learned(one)), default=-1)
    turns = [i for i, one in enumerate(messages) if one.role not in _ALWAYS]
    if last < 0 or not turns:
        return []
    bound = _bound(messages)
    begins = [turns[0]]
    for before, place in pairwise(turns):
        starts = messages[place].role == "user" != messages[before].role
        if starts and place <= last and not bound[place]:
            begins.append(place)
    asked = max((i for i in turns if messages[i].role == "user" and i <= last), default=-1)
    replies = [
        i
        for i in turns
        if max(asked, begins[-1] - 1) < i <= last
        and messages[i].role == "assistant"
        and not bound[i]
    ]
    head = begins[-1] if asked >= 0 else -1  # without a user there is no turn to keep
    edges = [*begins, *replies] if asked >= 0 else replies
    return [
        turns[bisect_left(turns, first) : bisect_left(turns, after)]
        for first, after in pairwise(edges)
        if first != head
    ]


def _without_oldest(
    content: Content, examples: Sequence[Example], limit: int, render: Render
) -> Left:
    if not isinstance(content, Conversation):
        return _left([None] * len(examples), NO_TURNS)
    places = [i for i, one in enumerate(content.messages) if _is_learned(one)]
    if len(examples) > 1 and len(places) == len(examples):
        # One Example for each trained turn: those that fit stay as they are.
        left = [
            one if one.num_tokens <= limit else _last_of(content, place, limit, render)
            for one, place in zip(examples, places, strict=True)
        ]
        return _left(left, STILL_TOO_LONG)
    short = _fewest_left_out(content, limit, render)
    return _left([None] * (len(examples) - len(short)) + short, STILL_TOO_LONG)


def _last_of(conversation: Conversation, place: int, limit: int, render: Render) -> Example | None:
    """What is left of the conversation up to a trained turn, which alone is trained."""
    before = [replace(one, weight=0.0) for one in conversation.messages[:place]]
    part = replace(conversation, messages=(*before, conversation.messages[place]))
    short = _fewest_left_out(part, limit, render)
    return short[-1] if short else None


def _fewest_left_out(conversation: Conversation, limit: int, render: Render) -> list[Example]:
    """The Examples of a conversation without as few of its oldest turns as the limit allows; none where it
    allows none. The number is found by halves: fewer turns are taken to make no longer a row."""
    groups = groups_to_leave_out(conversation.messages)

    def without(count: int) -> list[Example]:
        gone = {place for group in groups[:count] for place in group}
        kept = tuple(one for i, one in enumerate(conversation.messages) if i not in gone)
        found = render(replace(conversation, messages=kept))
        return list(found) if all(one.num_tokens <= limit for one in found) else []

    fits = without(len(groups)) if groups else []
    low, high = 1, len(groups)
    while fits and low < high:
        middle = (low + high) // 2
        if found := without(middle):
            fits, high = found, middle
        else:
            low = middle + 1
    return fits


def _left(examples: Sequence[Example | None], why: str) -> Left:
    gone = all(one is None for one in examples)
    return Left(tuple(examples), why if gone else "")


def _is_learned(message: Message) -> bool:
    """Whether a message may be trained; settings that train fewer turns are the renderer's."""
    return message.role == "assistant" if message.weight is None else message.weight > 0


def _bound(messages: Sequence[Message]) -> list[bool]:
    """[M] whether a message must stay with the one before it: it stands between a call and a result of it,
    or is that result. A result without a known id belongs to the nearest call before."""
    opens = np.zeros(len(messages) + 1, dtype=np.int64)
    called: dict[str, int] = {}
    nearest = -1
    for place, message in enumerate(messages):
        for call in message.tool_calls:
            nearest = place
            if call.id is not None:
                called[call.id] = place
        if message.role == "tool":
            first = called.get(message.tool_call_id or "", nearest)
            if first >= 0:
                opens[first + 1] += 1
                opens[place + 1] -= 1
    return [bool(n) for n in np.cumsum(opens[:-1])]


def _common(one: Example, other: Example) -> int:
    """Tokens that two Examples have in common at their beginning, with equal weights."""
    size = min(one.num_tokens, other.num_tokens)
    differ = np.flatnonzero(
        (one.input_ids[:size] != other.input_ids[:size])
        | (one.weight[:size] != other.weight[:size])
    )
    return int(differ[0]) if differ.size else size


def _reversed(one: Example) -> Example:
    return Example(one.input_ids[::-1], one.weight[::-1], one.origin)
