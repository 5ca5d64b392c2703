"""Rows prepared by other processes, in any order, are the rows prepared here."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass

import numpy as np
import pytest

from hone.config.sections import DataSection
from hone.data import crew as crew_module
from hone.data.crew import each
from hone.data.prepare import prepare
from hone.data.steps import StepSource
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import DataError, EnvironmentFault
from tests.data.small import CHATML, byte_level

ROWS = 600


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    byte_level().save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return TextTokenizer.load(folder)


def write(path, count=ROWS, bad=()):
    lines = []
    for n in range(count):
        said = [{"role": "user", "content": f"question {n} " + "x" * (n % 50)}]
        said.append({"role": "assistant", "content": f"answer {n}", "weight": int(n % 7 != 3)})
        lines.append("{" if n in bad else json.dumps({"messages": said}))
    path.write_text("\n".join(lines) + "\n")
    return path


def lead(
    path, tokenizer, cache, said=None, *, max_length=10**6, wait=True, follow=False, **section
):
    return prepare(
        DataSection(path=str(path), **section),
        tokenizer=tokenizer,
        template=load_template(tokenizer),
        max_length=max_length,
        cache_dir=cache,
        say=lambda event, told: None if said is None else said.append((event, told)),
        wait=wait,
        follow=follow,
    )


def every(prepared):
    rows = prepared.train
    return [
        [(e.input_ids.tolist(), e.weight.tolist()) for e in rows.examples(r)]
        for r in range(rows.num_rows)
    ]


def steps(prepared):
    source = StepSource(
        prepared.train, batch_size=8, seed=3, shuffle=True, share_prefixes=True, pack=True
    )
    prepared.follow(source.order_from(0), head=64)
    return [source.step(k, 200) for k in range(source.steps_per_epoch)]


def test_a_crew_makes_what_this_process_makes(tmp_path, tokenizer):
    path = write(tmp_path / "rows.jsonl", count=6000)
    here = lead(path, tokenizer, None, workers=0)
    said: list = []
    crew = lead(path, tokenizer, tmp_path / "cache", said, workers=2, wait=False)
    try:
        assert crew.train.figures().is_estimate
        assert said[-1][1]["waiting"] > 0
        for a, b in zip(steps(crew), steps(here), strict=True):
            assert (a.tokens, a.trained_tokens, a.weight, a.row_names) == (
                b.tokens, b.trained_tokens, b.weight, b.row_names,
            )  # fmt: skip
            for p, q in zip(a.packs, b.packs, strict=True):
                assert np.array_equal(p.input_ids, q.input_ids)
                assert np.array_equal(p.weight, q.weight)
        assert crew.is_complete
        assert every(crew) == every(here)
        assert crew.ledgers == here.ledgers
        assert crew.ledgers[0].read == crew.ledgers[0].kept + crew.ledgers[0].num_dropped == 6000
    finally:
        crew.close()


def test_the_second_start_finds_all_of_it(tmp_path, tokenizer):
    path = write(tmp_path / "rows.jsonl")
    first = lead(path, tokenizer, tmp_path / "cache", workers=2)
    first.close()
    second = lead(path, tokenizer, tmp_path / "cache", workers=2, wait=False)
    assert second.is_complete
    assert every(second) == every(lead(path, tokenizer, None, workers=0))


@pytest.mark.fault(12)
@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_stands_still_is_replaced(tmp_path, tokenizer, monkeypatch, fate):
    monkeypatch.setattr(crew_module, "_LOOK_SECONDS", 0.3)
    path = write(tmp_path / "rows.jsonl", count=3000)
    crew = lead(path, tokenizer, tmp_path / "cache", workers=2, wait=False)
    try:
        crew.follow(np.arange(3000), head=8)
        while not (struck := crew.files[0].pids):
            time.sleep(0.01)
        for pid in struck:
            os.kill(pid, fate)
        assert not crew.is_complete
        crew.files[0].finish()
        assert not set(struck) & set(crew.files[0].pids)
        assert every(crew) == every(lead(path, tokenizer, None, workers=0))
    finally:
        crew.close()


@dataclass
class NoOrder:
    """Nothing that a process must know."""


@pytest.mark.fault(12)
def test_who_stands_still_is_given_up_and_who_works_is_waited_for(monkeypatch):
    monkeypatch.setattr(crew_module, "_LOOK_SECONDS", 0.25)

    def ask(job):
        return each([job], NoOrder(), 1, lambda told: told["did"], "tests.data.sleeper")[0]

    assert ask({"work": 2.0})["work"] == 2.0
    with pytest.raises(EnvironmentFault, match=r"stood still 3 times over the same rows.*no work"):
        ask({"sleep": 600})


def test_no_process_is_left(tmp_path, tokenizer):
    path = write(tmp_path / "rows.jsonl", count=3000)
    crew = lead(path, tokenizer, tmp_path / "cache", workers=2, wait=False)
    crew.follow(np.arange(3000), head=8)
    pids = crew.files[0].pids
    crew.close()
    deadline = time.time() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.time() < deadline:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_bad_row_is_named_before_anything_is_prepared(tmp_path, tokenizer, workers):
    path = write(tmp_path / "rows.jsonl", bad={400, 20})
    with pytest.raises(DataError) as caught:
        lead(path, tokenizer, tmp_path / "cache", workers=workers, wait=False)
    assert f"{path}:21" in caught.value.where
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_rows_are_left_out_and_counted_where_that_is_asked_for(tmp_path, tokenizer, workers):
    path = write(tmp_path / "rows.jsonl", bad={400, 20})
    prepared = lead(path, tokenizer, tmp_path / "cache", workers=workers, bad_rows="drop")
    ledger = prepared.ledgers[0]
    assert ledger.read == ROWS == ledger.kept + ledger.num_dropped
    (reason,) = [name for name in ledger.dropped if name.startswith("bad row")]
    assert ledger.dropped[reason].lines == [21, 401]
    assert prepared.train.row_name(20).endswith(":22")
    prepared.close()


def test_long_rows_are_refused_before_the_first_step(tmp_path, tokenizer):
    path = write(tmp_path / "rows.jsonl")
    whole = lead(path, tokenizer, None, workers=0)
    longest = whole.train.figures().longest
    with pytest.raises(DataError, match="longer than") as caught:
        lead(path, tokenizer, tmp_path / "cache", workers=2, wait=False, max_length=longest - 1)
    assert "of 600 rows" in caught.value.what or "rows are longer" in caught.value.what


def test_a_file_that_changes_is_told_of(tmp_path, tokenizer):
    path = write(tmp_path / "rows.jsonl", count=3000)
    crew = lead(path, tokenizer, tmp_path / "cache", workers=2, wait=False)
    write(path, count=10)
    try:
        with pytest.raises(DataError, match="changed while it was read"):
            crew.files[0].finish()
    finally:
        crew.close()


def test_a_file_that_goes_is_told_of_and_what_was_prepared_is_kept(tmp_path, tokenizer):
    path = write(tmp_path / "rows.jsonl", count=6000)
    crew = lead(path, tokenizer, tmp_path / "cache", workers=2, wait=False)
    away = path.rename(tmp_path / "away")
    try:
        with pytest.raises(DataError, match="cannot be read any more"):
            crew.files[0].finish()
    finally:
        crew.close()
    away.rename(path)
    again = lead(path, tokenizer, tmp_path / "cache", workers=2)
    assert every(again) == every(lead(path, tokenizer, None, workers=0))
    again.close()


def test_one_that_follows_prepares_nothing_and_reads_the_same_rows(tmp_path, tokenizer):
    """As ranks do: one of a machine prepares, the others take the rows from the cache as they come."""
    path = write(tmp_path / "rows.jsonl", count=3000)
    here = lead(path, tokenizer, None, workers=0)
    leader = lead(path, tokenizer, tmp_path / "cache", workers=1, wait=False)
    said: list = []
    follower = lead(path, tokenizer, tmp_path / "cache", said, wait=False, workers=1, follow=True)
    try:
        assert not follower.is_complete
        before = set((tmp_path / "cache").rglob("*"))
        leader.follow(np.arange(3000), head=64)
        assert every(follower) == every(here)
        assert all(file.pids == [] for file in follower.files)
        assert leader.train.fingerprint == follower.train.fingerprint
        after = set((tmp_path / "cache").rglob("*"))
        assert len(after) > len(before)
    finally:
        leader.close()
        follower.close()


def test_one_that_follows_is_not_confused_by_rows_that_were_prepared_twice(tmp_path, tokenizer):
    path = write(tmp_path / "rows.jsonl", count=400)
    here = lead(path, tokenizer, None, workers=0)
    leader = lead(path, tokenizer, tmp_path / "cache", workers=1, wait=False)
    follower = lead(path, tokenizer, tmp_path / "cache", wait=False, workers=1, follow=True)
    try:
        file = leader.files[0]
        first = file._workshop.prepare([file._place(row) for row in range(100)])
        first.save(file._folder)
        follower.train.ensure(range(50))
        leader.follow(np.arange(400), head=64)
        assert every(follower) == every(here)
    finally:
        leader.close()
        follower.close()
