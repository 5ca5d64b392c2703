"""Prepared rows are shared: two writers, a writer that is killed and a pruning in between leave the same Examples."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from hone.config.sections import DataSection
from hone.data.hold import is_held
from hone.data.prepare import prepare
from hone.data.segment import open_segment
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.recipes.cache import prune
from tests.data.small import CHATML, byte_level

ROWS = 8_000

_PREPARE = """
import sys
from pathlib import Path
from hone.config.sections import DataSection
from hone.data.prepare import prepare
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
rows, model, cache, workers = sys.argv[1:]
tokenizer = TextTokenizer.load(Path(model))
prepared = prepare(
    DataSection(path=rows, workers=int(workers)), tokenizer=tokenizer, template=load_template(tokenizer),
    max_length=10**6, cache_dir=Path(cache), say=lambda event, told: None,
)
print(prepared.ledgers[0].kept, flush=True)
prepared.close()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    byte_level().save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": f"question {n} " + "x" * (n % 40), "completion": f"answer {n}"})
            + "\n"
            for n in range(ROWS)
        )
    )
    return path


@pytest.fixture(scope="module")
def want(rows, model):
    return every(lead(rows, model, None, workers=0))


def lead(rows, model, cache, *, workers=2, **how):
    tokenizer = TextTokenizer.load(model)
    return prepare(
        DataSection(path=str(rows), workers=workers),
        tokenizer=tokenizer,
        template=load_template(tokenizer),
        max_length=10**6,
        cache_dir=cache,
        say=lambda event, told: None,
        **how,
    )


def every(prepared):
    rows = prepared.train
    return [
        [(e.input_ids.tobytes(), e.weight.tobytes()) for e in rows.examples(r)]
        for r in range(rows.num_rows)
    ]


def start(rows, model, cache, workers=2):
    words = [sys.executable, "-c", _PREPARE, str(rows), str(model), str(cache), str(workers)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def prepared_rows(cache):
    """Each prepared row with the segments that hold it."""
    found: dict[int, list[str]] = {}
    for path in cache.glob("*/*.safetensors"):
        segment = open_segment(path)
        for row in [] if segment is None else segment.row.tolist():
            found.setdefault(row, []).append(path.name)
    return found


def killed_in_the_middle(rows, model, cache):
    """The rows that a process had prepared when it was killed."""
    process = start(rows, model, cache)
    deadline = time.monotonic() + 60
    while len(list(cache.glob("*/*.safetensors"))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None, "it was done before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    time.sleep(0.5)  # its own processes end when their input does
    return prepared_rows(cache)


def test_two_processes_that_prepare_one_file_at_once_end_with_the_same_rows(
    tmp_path, rows, model, want
):
    cache = tmp_path / "cache" / "data"
    both = [start(rows, model, cache) for _ in range(2)]
    for process in both:
        assert process.communicate()[0] == f"{ROWS}\n"
        assert process.returncode == 0
    assert len(list(cache.iterdir())) == 1
    assert not list(cache.glob("*/.*.part"))
    third = lead(rows, model, cache)
    assert third.ledgers[0].read == third.ledgers[0].kept == ROWS
    assert every(third) == want
    third.close()


def test_what_a_killed_process_prepared_is_used_and_not_made_again(tmp_path, rows, model, want):
    cache = tmp_path / "cache" / "data"
    before = killed_in_the_middle(rows, model, cache)
    assert 0 < len(before) < ROWS
    (folder,) = cache.iterdir()
    assert not is_held(folder)
    half = folder / ".0123456789abcdef0123456789abcdef.4194304.part"
    half.write_bytes(b"half")
    prune(tmp_path / "cache")
    assert not half.exists()
    assert prepared_rows(cache) == before
    second = lead(rows, model, cache)
    assert every(second) == want
    assert second.ledgers[0].sentence() == f"read {ROWS} = kept {ROWS} + dropped 0"
    second.close()
    after = prepared_rows(cache)
    assert sorted(after) == list(range(ROWS))
    assert all(after[row] == segments for row, segments in before.items())


@pytest.mark.fault(12)
def test_a_process_of_the_crew_that_is_killed_leaves_every_row_right(tmp_path, rows, model, want):
    crew = lead(rows, model, tmp_path / "cache" / "data", wait=False)
    try:
        (file,) = crew.files
        crew.train.ensure([0])
        killed = 0
        for pid in file.pids:
            if not crew.is_complete:
                os.kill(pid, signal.SIGKILL)
                killed += 1
        assert killed
        file.finish()
        assert every(crew) == want
        assert crew.ledgers[0].sentence() == f"read {ROWS} = kept {ROWS} + dropped 0"
    finally:
        crew.close()


def test_what_was_pruned_meanwhile_is_made_again(tmp_path, rows, model, want):
    cache = tmp_path / "cache" / "data"
    first = lead(rows, model, cache)
    assert not prune(tmp_path / "cache", everything=True).removed  # a live run holds it
    shutil.rmtree(cache)  # by hand: what is mapped stays readable
    assert every(first) == want
    first.close()
    second = lead(rows, model, cache)
    second.close()
    assert len(prune(tmp_path / "cache", everything=True).removed) == 1
    third = lead(rows, model, cache)
    assert every(third) == want
    third.close()
