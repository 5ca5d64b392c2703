"""Lines of files for tests: good rows of several shapes, and bad ones of many kinds, mixed by hypothesis."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st

texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(str.strip)
anything = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)


def line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


good = st.one_of(
    st.builds(lambda a, b: line({"user": a, "assistant": b}), texts, texts),
    st.builds(
        lambda s, a, b: line({"system": s, "user": a, "assistant": b, "id": 7}), texts, texts, texts
    ),
    st.builds(lambda a, b: line({"prompt": a, "completion": b}), texts, texts),
    st.builds(
        lambda a, b: line({"messages": [_message("user", a), _message("assistant", b)]}),
        texts,
        texts,
    ),
    st.builds(
        lambda a, b: line({"messages": [_message("user", a), _message("assistant", b)] * 2}),
        texts,
        texts,
    ),
    st.builds(lambda a, b: line({"question": a, "answer": b}), texts, texts),
)
bad = st.one_of(
    st.just(b'{"user": "a", "assist'),
    st.just(b'{"user": NaN, "assistant": "b"}'),
    st.just(b'{"user": "a", "user": "b", "assistant": "c"}'),
    st.just(b'{"user": "\xff", "assistant": "b"}'),
    st.just(b"3"),
    st.just(b"null"),
    st.just(b"[]"),
    st.just(b"{}"),
    st.just(b'["only a question"]'),
    st.just(line({"user": 3, "assistant": "b"})),
    st.just(line({"user": "a", "assistant": None})),
    st.just(line({"user": " ", "assistant": "b"})),
    st.just(line({"messages": []})),
    st.just(line({"messages": "no"})),
    st.just(line({"messages": [3]})),
    st.just(line({"messages": [_message("user", "no answer")]})),
    st.just(line({"messages": [_message("bot", "a"), _message("assistant", "b")]})),
    st.just(line({"conversations": [{"from": "human"}]})),
    st.just(line({"conversations": [{"from": "human", "value": "no answer"}], "system": "s"})),
    st.just(line({"conversations": {}})),
    st.just(line({"prompt": ["x", 3], "completion": "b"})),
    st.binary(max_size=8)
    .filter(lambda b: b"\n" not in b and b.strip(b" \t\r"))
    .map(lambda b: b"x" + b),
)
blank = st.sampled_from([b"", b"  ", b"\t", b"\r"])
mixed = st.lists(st.one_of(good, good, bad, blank), min_size=1, max_size=25)


def rows_of(lines: list[bytes]) -> int:
    """How many of them are rows: blank lines are none."""
    return sum(1 for one in lines if one.strip(b" \t\r"))


def write(path: Path, lines: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(one + b"\n" for one in lines))
    return path


def check_sum(told: dict[str, object], *, lines: list[bytes]) -> None:
    """That a report adds up, and names every dropped row once."""
    assert told["read"] == rows_of(lines)
    assert told["read"] == told["kept"] + told["dropped"]  # type: ignore[operator]
    for ledger in told["files"]:  # type: ignore[union-attr]
        dropped = [one for reason in ledger["dropped"].values() for one in reason["lines"]]
        assert len(dropped) == len(set(dropped)) == ledger["read"] - ledger["kept"]
        assert all(lines[number - 1].strip() for number in dropped)
        for reason in (*ledger["dropped"].values(), *ledger["repaired"].values()):
            assert reason["count"] == len(reason["lines"])
    for one in told["written"]:  # type: ignore[union-attr]
        assert one["rows"] == Path(one["file"]).read_bytes().count(b"\n")
