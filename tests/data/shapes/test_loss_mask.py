"""A row's mask: every form of it, its agreement with weights, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.rows import A, S, U, read, refusal

TOOL = {"role": "tool", "content": "r"}
D = {"role": "developer", "content": "d"}


def weights(mask: object, messages=(S, U, A, U, A), **more: object) -> list[float | None]:
    return [
        one.weight for one in read({"messages": [*messages], "loss_mask": mask, **more}).messages
    ]


@pytest.mark.parametrize("form", [lambda word: word, lambda word: {"type": word}])
def test_words(form):
    assert weights(form("all")) == [1.0] * 5
    assert weights(form("none")) == [0.0] * 5
    assert weights(form("last_assistant")) == [0.0, 0.0, 0.0, 0.0, 1.0]


@given(mask=st.lists(st.booleans(), min_size=5, max_size=5))
def test_a_list_speaks_of_each_message(mask):
    wanted = [float(flag) for flag in mask]
    assert weights(mask) == wanted
    assert weights({"type": "message_mask", "mask": mask}) == wanted


def test_a_list_speaks_of_the_messages_that_the_row_lists():
    assert weights([False, True], (U, A), system="s") == [0.0, 0.0, 1.0]


def test_roles():
    row = (S, U, A, TOOL, D, A)
    assert weights({"type": "roles"}, row) == [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert weights({"type": "roles", "assistant": False, "user": True}, row)[1:3] == [1.0, 0.0]
    assert weights({"type": "roles", "system": True, "tool": True}, row) == [1, 0, 1, 1, 1, 1]


def test_weights_that_agree_are_kept():
    assert weights([False, False, True], (U, {**U, "weight": 0}, {**A, "weight": 0.5})) == [
        0,
        0,
        0.5,
    ]
    assert weights(None, (U, A)) == [None, None]


@pytest.mark.parametrize(
    ("mask", "pointer", "words"),
    [
        ("al", "", "the mask 'al' is not known"),
        (7, "", "found the number 7"),
        ({"mask": []}, "/type", "found null"),
        ({"type": "role"}, "/type", "found the text 'role'"),
        ({"type": "roles", "users": True}, "", "has no 'users'"),
        ({"type": "all", "mask": []}, "", "has no 'mask'"),
        ({"type": "roles", "user": 1}, "/user", "true or false"),
        ({"type": "message_mask"}, "", "has no 'mask'"),
        ({"type": "message_mask", "mask": "all"}, "", "a list of true and false"),
        ([True], "", "1 entries and the row 2 messages"),
        ([True, 1], "", "number 1 at place 1"),
        ([False, False], "", "leaves out message 1"),
        ([True, True], "", "learns message 0"),
    ],
)
def test_masks_refused(mask, pointer, words):
    row = {"messages": [{**U, "weight": 0}, {**A, "train": True}], "loss_mask": mask}
    assert words in refusal(row, f"/loss_mask{pointer}").what


def test_a_row_may_learn_what_others_say():
    found = read({"messages": [U, {**U, "train": True}]})
    assert [one.weight for one in found.messages] == [None, 1.0]
    assert found.remarks == ("trains-other-roles",)
    assert "no assistant turn" in refusal({"messages": [U, {**U, "weight": 0}]}).what
