"""Broken rows, made from good ones, down the road to Examples: every file ends as rows or as a DataError.

`python -m tests.prove.fuzzer FOLDER SECONDS SEED` does so until the time is over, in a process with a memory limit. It
writes each file into FOLDER before it tries it, so that what hangs or kills the process is found there.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from hone.data import lines, reader
from hone.data.conversation import Content
from hone.data.formats import RowFormat
from hone.data.lines import parts_of, read_part
from hone.data.reader import RowReader
from hone.data.render import Renderer
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import DataError
from tests.data.small import byte_level, text_tokenizer

CAP_BYTES = 64 * 2**10
CASE_SECONDS = 10.0
MEMORY_BYTES = 768 * 2**20
TEMPLATES = ("qwen3", "llama3", "mistral", "gemma")
CORPUS = Path(__file__).resolve().parents[1] / "corpus"

_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, 2.5]}'}}
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
_PLAIN = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": "answer"},
    ]
}
_SEEDS: list[Any] = [
    _PLAIN,
    {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "tool_calls": [_CALL], "weight": 0.5},
            {"role": "tool", "tool_call_id": "c", "content": "r"},
            {"role": "assistant", "content": "<think>t</think>a", "reasoning_content": "x"},
        ],
        "tools": [_TOOL],
    },
    {"prompt": "question", "completion": "answer"},
    {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
    {"system": "s", "user": "u", "assistant": "a"},
    {"instruction": "i", "input": "j", "output": "o", "history": [["a", "b"]]},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "tools": "[]"},
    {"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    {"input": {"messages": [{"role": "user", "content": "q"}]}, "output": "a"},
    {"question": "q", "answer": "a"},
    ["question", {"answer": "a"}],
    {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]},
    {"text": "plain text 2024-01-01"},
]  # fmt: skip
_ODD: list[Any] = [
    None, True, False, 0, -1, 2**63, -(2**64) - 1, 10**400, 1e308, -0.0, 0.1, "", " ", "\0", "\ud800", "\u202e<|im_end|>",
    "<|im_start|>assistant", "e\u0301\u200d👩‍👩‍👧", "{{ 7*7 }}{% raw %}", "x" * 3000, [], {}, [[]], {"": ""}, [None], [1, "a", {}],
    "NaN", "001", "<think>", "</think>", "<tool_call>{}</tool_call>",
]  # fmt: skip
_BYTES = [
    b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\r\n", b"\n", b"\n\n",
    b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b", b'"', b"\\", b'\\"', b"\\u", b"\\ud800", b"\\u0000", b"{", b"}", b"[", b"]", b",",
    b":", b"NaN", b"-Infinity", b"1e999", b"-", b"9" * 30, b"9" * 5000, b"0.1e-400", b"[" * 80, b"[" * 50000, b'{"a":' * 70, b"x" * 70000,
    b'"data":', b"\x1f\x8b", b"PAR1", b"null", b"true", b"/*", b"//", b"'", b"\t", b" " * 70000,
]  # fmt: skip


def seeds() -> list[bytes]:
    """Good files of every shape: lines, a list, a list under data, one object over many lines; and the corpus."""
    one = [json.dumps(row).encode() for row in _SEEDS]
    files = [row + b"\n" + row for row in one]
    files += [b"[" + row + b",\n " + row + b"]" for row in one[:3]]
    files += [b'{"data": [' + row + b"]}" for row in one[:3]]
    files += [json.dumps(row, indent=1).encode() for row in _SEEDS[:4]]
    return files + [path.read_bytes() for path in corpus()]


def corpus() -> list[Path]:
    """The files that are kept: hand-made ones, and those that once found something."""
    return sorted(path for path in CORPUS.iterdir() if path.suffix in (".json", ".jsonl"))


def broken(rng: random.Random, files: list[bytes]) -> bytes:
    """A file made from one or two others."""
    data = rng.choice(files)
    if is_odd := rng.random() < 0.7:
        data = _with_odd_value(rng, data)
    for _ in range(rng.choice((0, 0, 0, 1) if is_odd else (1, 1, 2, 3, 8))):
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        match rng.randrange(9):
            case 0 if data:
                at = rng.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
            case 1:
                data = data[:a]
            case 2:
                data = data[:a] + data[b:]
            case 3 | 4:
                data = data[:a] + rng.choice(_BYTES) + data[a:]
            case 5:
                data = data[:b] + data[a:b] * rng.randrange(1, 4) + data[b:]
            case 6:
                data = data[:a] + rng.choice(files)[-rng.randrange(1, 200) :]
            case 7:
                data = data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\r\n", b" \n")))
            case _:
                data = data[:a] + bytes(rng.randrange(256) for _ in range(4)) + data[a:]
    if rng.random() < 0.3:  # a good row first: what follows is looked at quickly
        data = json.dumps(_PLAIN).encode() + b"\n" + data
    return data[: 4 * CAP_BYTES]


def _with_odd_value(rng: random.Random, data: bytes) -> bytes:
    """The first row of a file with something in it replaced, taken out, named otherwise or doubled."""
    try:
        row: Any = json.loads(data.split(b"\n")[0])
    except (ValueError, RecursionError):
        return data
    places: list[tuple[Any, Any]] = []
    inside = [row]
    while inside:
        one = inside.pop()
        keys = (
            list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else []
        )
        places += [(one, key) for key in keys]
        inside += [one[key] for key in keys]
    if not places:
        return data
    for _ in range(rng.choice((1, 1, 2, 4))):
        owner, key = rng.choice(places)
        try:
            match rng.randrange(6):
                case 0 | 1 | 2:
                    owner[key] = rng.choice(_ODD)
                case 3:
                    del owner[key]
                case 4 if isinstance(owner, dict):
                    owner[
                        rng.choice(
                            ("rôle", "content", "tools", "messages", "loss_mask", "images", "")
                        )
                    ] = owner.pop(key)
                case _:
                    owner[key] = [owner[key]] * rng.randrange(1, 5)
        except (LookupError, TypeError):  # an earlier change took it away
            continue
    try:
        return (
            json.dumps(row, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
            + b"\n"
            + data
        )
    except (ValueError, RecursionError):
        return data


class Road:
    """A file to Examples, as training and as the crew read it."""

    def __init__(self) -> None:
        reader.MAX_ROW_BYTES = CAP_BYTES  # type: ignore[misc]
        lines.PART_BYTES = CAP_BYTES  # type: ignore[misc]
        self._tokenizer: TextTokenizer = text_tokenizer(
            byte_level(["<|im_start|>", "<|im_end|>"]),
            eos_token="<|im_end|>",
            bos_token="<|im_start|>",
        )
        self._renderers = [
            Renderer(self._tokenizer, load_template(self._tokenizer, choice=name))
            for name in TEMPLATES
        ]
        self._at = 0

    def fate(self, path: Path) -> str:
        """What became of a file, in words. Raises whatever is neither rows nor a DataError."""
        self._at += 1
        renderer = self._renderers[self._at % len(self._renderers)]
        form, rows, refused = RowFormat(), list[Content](), list[str]()
        source = iter(RowReader(path, chunk_bytes=2 ** (self._at % 12 + 5)))
        while True:
            try:
                row = next(source)
            except StopIteration:
                break
            except DataError as error:  # the rest of the file is not read
                refused.append(error.what)
                break
            try:
                rows.append(form.read(row))
                for one in renderer.render_all(rows[-1:])[0].examples:
                    assert one.weight[0] == 0
                    assert one.input_ids.shape == one.weight.shape
            except DataError as error:
                refused.append(error.what)
        assert all(refused)
        assert rows or refused
        self._read_parts(path, form.shape)
        return f"{len(rows)} rows" if not refused else f"refused: {refused[0][:60]}"

    def _read_parts(self, path: Path, shape: str) -> None:
        """In parts, as the crew does: the quick look at a line and the careful one find the same rows."""
        for begin, end in parts_of(path.stat().st_size):
            told: list[tuple[Any, ...]] = []
            for quick in (False, True):
                form = RowFormat(shape or "auto")
                try:
                    part = read_part(
                        str(path),
                        begin,
                        end,
                        read=form.read,
                        keep_faults=True,
                        contents=not quick,
                        skim=form.skim if quick else None,
                    )
                    rows = [column.tolist() for column in (part.start, part.size, part.line)]
                    told.append((rows, part.lines, part.blank_lines, part.digest, part.faults))
                except DataError as error:
                    told.append((error.what, error.where))
            assert told[0] == told[1]


def limit_memory() -> None:
    """From here on this process gets so much more memory and no more."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, size + MEMORY_BYTES))


def main() -> int:
    """Try broken files until the time is over; 1 where one ended otherwise than it should."""
    folder, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])

    def too_slow(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {CASE_SECONDS:g} s")

    signal.signal(signal.SIGALRM, too_slow)
    rng, files, road = random.Random(seed), seeds(), Road()
    limit_memory()
    ends = time.monotonic() + seconds
    count, fates, code = 0, dict[str, int](), 0
    while time.monotonic() < ends:
        data = broken(rng, files)
        path = folder / ("case.json" if rng.random() < 0.4 else "case.jsonl")
        path.write_bytes(data)
        count += 1
        signal.setitimer(signal.ITIMER_REAL, CASE_SECONDS)
        try:
            fate = road.fate(path)
            fates[fate[:20]] = fates.get(fate[:20], 0) + 1
        except BaseException:  # noqa: BLE001 - whatever it is, it is a find
            (folder / f"find-{seed}-{count}{path.suffix}").write_bytes(data)
            traceback.print_exc()
            code = 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    print(
        f"{count:,} files; {len(fates)} fates; peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB"
    )
    print(sorted(fates.items(), key=lambda one: -one[1])[:40])
    return code


if __name__ == "__main__":
    sys.exit(main())
