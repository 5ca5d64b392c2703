"""The plain texts: what is marked as following does follow, and none of them is a chat or the task."""

from __future__ import annotations

from random import Random

from hone.recipes.corpus import any_text, parts_of


def texts(count: int = 2000, seed: int = 3) -> list[list[tuple[str, bool]]]:
    random = Random(seed)
    return [any_text(random) for _ in range(count)]


def test_marks_part_a_text() -> None:
    assert parts_of("Anna has it. Who?‹ Anna.› Ben‹ too.›") == [
        ("Anna has it. Who?", False),
        (" Anna.", True),
        (" Ben", False),
        (" too.", True),
    ]
    assert parts_of("plain") == [("plain", False)]


def test_a_seed_gives_the_same_texts() -> None:
    assert texts(50) == texts(50)
    assert texts(50) != texts(50, seed=4)


def test_every_text_has_something_that_follows_and_no_marks_are_left() -> None:
    for parts in texts():
        whole = "".join(text for text, _ in parts)
        assert any(follows for _, follows in parts), whole
        assert not set(whole) & set("‹›")
        assert all(text for text, _ in parts)


def test_a_name_that_follows_was_said_before() -> None:
    for parts in texts():
        said = ""
        for text, follows in parts:
            if follows:
                words = text.replace('"', " ").replace(",", " ").replace(".", " ").split()
                names = [word for word in words if word[0].isupper() and word.isalpha()]
                months_apart = [name for name in names if name not in said]
                assert all(len(name) > 2 and _is_month(name) for name in months_apart), (said, text)
            said += text


def test_it_is_neither_a_chat_nor_the_task() -> None:
    for parts in texts():
        whole = "".join(text for text, _ in parts)
        assert "<|" not in whole
        assert not (" | " in whole and "-0" in whole)


def _is_month(word: str) -> bool:
    from hone.recipes.town import MONTHS

    return word in MONTHS
