"""One attempt at a job against a real store, with processes that do as a test says."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from hone.errors import DataError
from hone.service import attempt as module
from hone.service.attempt import Patience
from hone.service.death import Kills
from hone.service.order import OUTCOME, Outcome
from hone.service.records import Job
from hone.service.store import Store
from tests.folders import model_folder
from tests.service.jobs import BOB, store_of
from tests.service.works import QUICK, Script, Scripted, asked, attempt, messages

LONG = Patience(lease_s=60.0, cancel_s=0.5, pause_s=1.0)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    (tmp_path / "model").mkdir()
    return store_of(tmp_path, max_running=9)


def all_four(script: Script) -> int | None:
    """A run of four steps, one at each look."""
    if script.looks > 4:
        return script.finish()
    script.step(script.looks)
    if script.looks == 2:
        script.save(2)
    return None


def endless(script: Script) -> int | None:
    script.step(script.looks, of=1000)
    return None


def test_a_job_that_ends_well_is_there_whole(store: Store) -> None:
    made = asked(store)
    done = attempt(store, Scripted(all_four))
    assert done is not None
    assert (done.status, done.trained_tokens, done.error) == ("succeeded", 40, None)
    assert (done.progress["step"], done.progress["total_steps"]) == (4, 4)
    assert store.model(made.tuned_name, BOB).path == f"jobs/{made.id}/run"  # type: ignore[union-attr]
    (result,) = done.result_files
    file = store.file(result, BOB)
    assert (file.purpose, file.filename) == ("fine-tune-results", "step_metrics.csv")
    rows = (store.root / "files" / result).read_text().splitlines()
    assert rows[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert rows[1:] == [f"{n},{9.0 - n},,," for n in (1, 2, 3, 4)]
    (checkpoint,) = store.checkpoints(made.id)[0]
    assert checkpoint.path == f"jobs/{made.id}/run/checkpoints/step-00000002"
    said = messages(store, made.id)
    assert said.index("Checkpoint created at step 2") > said.index("Step 2/4: training loss=7.0000")
    assert said[-1] == "The job has successfully completed"


def test_a_checkpoint_that_its_run_lets_go_of_is_listed_no_more(store: Store) -> None:
    made = asked(store)

    def plan(script: Script) -> int | None:
        if script.looks > 4:
            return script.finish()
        script.step(script.looks)
        script.save(script.looks, keep=2)
        return None

    done = attempt(store, Scripted(plan))
    assert done is not None
    assert [one.step for one in store.checkpoints(made.id)[0]] == [4, 3]
    assert store.model(f"{made.tuned_name}:ckpt-step-4", BOB) is not None
    assert store.model(f"{made.tuned_name}:ckpt-step-1", BOB) is None


def test_a_worker_that_dies_between_the_end_and_its_word_leaves_nothing_to_do_twice(
    store: Store,
) -> None:
    made = asked(store)
    first = store.claim("dead", 0.0)
    assert first is not None
    folder = store.root / "jobs" / made.id
    folder.mkdir(parents=True)
    script = Script(folder, lambda _: None)
    for number in (1, 2, 3, 4):
        script.step(number)
    script.finish()
    (folder / "tmp" / ".cache").mkdir(parents=True)
    done = attempt(store, Scripted())  # nothing may be started
    assert done is not None
    assert not (folder / "tmp").exists()
    assert (done.status, len(done.result_files)) == ("succeeded", 1)
    assert [m for m in messages(store, made.id) if m.startswith("Step")] == [
        f"Step {n}/4: training loss={9.0 - n:.4f}" for n in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(("wanted", "end"), [("cancel", "cancelled"), ("pause", "paused")])
@pytest.mark.parametrize("obeys", [True, False])
def test_what_an_owner_asks_for_is_done_soon(
    store: Store, wanted: str, end: str, obeys: bool
) -> None:
    made = asked(store)

    def plan(script: Script) -> int | None:
        if script.looks == 3:
            store.want(made.id, BOB, wanted)  # type: ignore[arg-type]
        if script.stops and obeys:
            Outcome("stopped").write(script.folder)
            return 143
        return endless(script)

    executor = Scripted(plan)
    began = time.monotonic()
    done = attempt(store, executor)
    assert done is not None
    assert done.status == end
    assert executor.started[0].is_killed
    assert executor.started[0].stops == 1
    assert time.monotonic() - began < 5
    if wanted == "pause":
        assert store.want(made.id, BOB, "run").status == "queued"
        again = attempt(store, Scripted(all_four))
        assert again is not None
        assert again.status == "succeeded"


def test_cancel_during_a_pause_does_not_wait_for_it(store: Store) -> None:
    made = asked(store)

    def plan(script: Script) -> int | None:
        if script.looks == 1:
            store.want(made.id, BOB, "pause")
        if script.looks == 4:
            store.want(made.id, BOB, "cancel")
        return endless(script)

    began = time.monotonic()
    done = attempt(store, Scripted(plan), patience=Patience(60.0, 0.5, 600.0))
    assert done is not None
    assert done.status == "cancelled"
    assert time.monotonic() - began < 10


def test_a_worker_that_ends_gives_its_job_back(store: Store) -> None:
    asked(store)
    end = threading.Event()

    def plan(script: Script) -> int | None:
        end.set()
        return 143 if script.stops else endless(script)

    done = attempt(store, Scripted(plan), should_end=end.is_set)
    assert done is not None
    assert (done.status, done.lease_owner) == ("queued", None)


@pytest.mark.fault(13)
def test_a_process_that_the_system_kills_for_memory_fails_its_job_with_the_cause(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(store)
    counts = iter([Kills(0, 0), Kills(1, 1)])
    monkeypatch.setattr(module.Kills, "now", lambda: next(counts))
    done = attempt(store, Scripted(lambda script: -9 if script.looks > 2 else endless(script)))
    assert done is not None
    assert done.status == "failed"
    assert done.error is not None
    assert done.error["code"] == "out_of_memory"
    assert "ran out of memory" in done.error["message"]
    assert store.running_jobs() == []


def test_a_process_that_dies_goes_on_while_it_comes_further(store: Store) -> None:
    made = asked(store)

    def dies_after(last: int):
        def plan(script: Script) -> int | None:
            script.step(min(script.looks, last), of=5)
            return -9 if script.looks == last else None

        return plan

    executor = Scripted(*(dies_after(n) for n in (1, 2, 3, 3)), all_four)
    done = attempt(store, executor)
    assert done is not None
    assert (done.status, len(executor.started)) == ("succeeded", 5)
    told = [m for m in messages(store, made.id) if "going on from the last checkpoint" in m]
    assert len(told) == 4


def test_a_process_that_dies_three_times_at_one_place_fails_its_job(store: Store) -> None:
    asked(store)
    executor = Scripted(*(lambda _: -11 for _ in range(9)))
    done = attempt(store, executor)
    assert done is not None
    assert done.status == "failed"
    assert done.error is not None
    assert (done.error["code"], len(executor.started)) == ("process_died", 3)
    assert "SIGSEGV" in done.error["message"]


def test_a_job_that_takes_its_worker_with_it_each_time_is_not_begun_for_ever(store: Store) -> None:
    """Each start is the last word of its worker; the twenty-first worker gives it up."""
    made = asked(store)

    def plan(script: Script) -> int | None:
        if len(executor.started) == 1:
            script.step(1)
            store.abandon("w")
            assert store.claim("w", -1)
            return None
        store.abandon("w")
        assert store.claim("w", -1)
        return None

    executor = Scripted(*[plan] * 30)
    for _ in range(22):
        done = attempt(store, executor)
        if done is not None:
            break
    assert done is not None
    assert done.error is not None
    assert "started 20 times without coming further than step 1" in done.error["message"]
    assert len(executor.started) == 21
    assert store.job(made.id).status == "failed"


def test_a_fault_of_ours_fails_one_job_and_not_the_worker(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = asked(store)
    monkeypatch.setattr(module.Follower, "read", lambda self: 1 / 0)
    done = attempt(store, Scripted(endless))
    assert done is not None
    assert done.error is not None
    assert (done.error["code"], done.status) == ("internal_error", "failed")
    assert store.running_jobs() == []
    assert "division" not in "".join(messages(store, made.id))


def test_what_a_job_failed_with_is_told_without_folders_of_the_machine(store: Store) -> None:
    made = asked(store)

    def plan(script: Script) -> int:
        where = f"{script.folder}/train.jsonl line 3"
        Outcome.of_error(DataError("unknown role 'bot'", where=where, remedy="use 'user'")).write(
            script.folder
        )
        return 3

    done = attempt(store, Scripted(plan))
    assert done is not None
    assert done.error == {
        "code": "invalid_training_file",
        "message": "unknown role 'bot'; where: train.jsonl line 3; what to do: use 'user'",
        "param": "training_file",
    }
    assert str(store.root) not in "".join(messages(store, made.id))


def test_a_job_whose_file_or_model_is_gone_fails_before_anything_starts(store: Store) -> None:
    made = asked(store)
    (store.root / "files" / made.training_file).unlink()
    asked(store, model="ft:tiny:bob::gone1234")
    for says in ("upload the file again", "create the job with another model"):
        done = attempt(store, Scripted())
        assert done is not None
        assert done.error is not None
        assert says in done.error["message"]


@pytest.mark.fault(14)
def test_a_worker_that_lost_its_job_ends_the_process_and_writes_nothing(store: Store) -> None:
    made = asked(store)
    taken: list[Job] = []

    def plan(script: Script) -> int | None:
        script.step(script.looks)
        if script.looks == 2:  # another worker is told that this one is dead
            store.abandon("w")
            job = store.claim("other", 60)
            assert job is not None
            taken.append(job)
        return None

    executor = Scripted(plan)
    assert attempt(store, executor) is None
    assert executor.started[0].is_killed
    now = store.job(made.id)
    assert (now.status, now.lease_owner, now.fence) == ("running", "other", taken[0].fence)
    assert [m for m in messages(store, made.id) if m.startswith("Step")] == [
        "Step 1/4: training loss=8.0000"
    ]


def test_a_job_that_tells_something_all_the_time_is_not_lost(store: Store) -> None:
    asked(store)
    began = time.monotonic()

    def plan(script: Script) -> int | None:
        if time.monotonic() - began > 2.5:
            return script.finish()
        return endless(script)

    done = attempt(store, Scripted(plan), patience=Patience(1.0, 0.5, 0.5))
    assert done is not None
    assert (done.status, done.attempts) == ("succeeded", 1)


@contextlib.contextmanager
def held(store: Store) -> Generator[None]:
    """Another process has the store to itself."""
    other = sqlite3.connect(store.root / "service.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.fault(15)
def test_a_store_that_is_locked_for_a_while_loses_no_event(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.service.tables.database._BUSY_MS", 50)
    store.close()
    made = asked(store)
    with contextlib.ExitStack() as stack:

        def plan(script: Script) -> int | None:
            if script.looks == 2:
                stack.enter_context(held(store))
            if script.looks == 4:
                stack.close()
            return all_four(script)

        done = attempt(store, Scripted(plan), patience=LONG)
    assert done is not None
    assert done.status == "succeeded"
    assert [m[:8] for m in messages(store, made.id) if m.startswith("Step")] == [
        f"Step {n}/4" for n in (1, 2, 3, 4)
    ]


@pytest.mark.fault(15)
def test_a_store_that_stays_locked_ends_the_process_before_the_lease(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.service.tables.database._BUSY_MS", 50)
    store.close()
    made = asked(store)
    executor = Scripted(endless)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:

        def plan(script: Script) -> int | None:
            if script.looks == 2:
                stack.enter_context(held(store))
            return endless(script)

        executor = Scripted(plan)
        assert attempt(store, executor, patience=QUICK) is None
        assert executor.started[0].is_killed
        assert time.monotonic() - began < QUICK.lease_s + 1
    assert store.job(made.id).status == "running"
    time.sleep(max(0.0, QUICK.lease_s - (time.monotonic() - began)))
    done = attempt(store, Scripted(all_four))
    assert done is not None
    assert (done.status, done.attempts) == ("succeeded", 2)


@pytest.mark.fault(15)
@pytest.mark.parametrize("jump", [-10_000_000.0, 10_000_000.0])
def test_a_clock_that_jumps_changes_neither_order_nor_lease(
    store: Store, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    made = asked(store)
    real = time.time

    def plan(script: Script) -> int | None:
        if script.looks == 2:
            monkeypatch.setattr(time, "time", lambda: real() + jump)
            assert store.claim("other", 60) is None
        return all_four(script)

    done = attempt(store, Scripted(plan), patience=LONG)
    assert done is not None
    assert done.status == "succeeded"
    assert [m[:6] for m in messages(store, made.id) if m.startswith("Step")] == [
        f"Step {n}" for n in (1, 2, 3, 4)
    ]


def test_an_outcome_of_an_earlier_start_is_not_taken_for_this_ones(store: Store) -> None:
    made = asked(store)
    folder = store.root / "jobs" / made.id
    folder.mkdir(parents=True)
    Outcome("stopped").write(folder)

    def plan(script: Script) -> int | None:
        assert not (script.folder / OUTCOME).exists()
        return all_four(script)

    done = attempt(store, Scripted(plan))
    assert done is not None
    assert done.status == "succeeded"


def test_rows_stay_while_a_job_needs_them(store: Store) -> None:
    """A file that expires or is deleted under a job is still there for it."""
    made = asked(store)

    def plan(script: Script) -> int | None:
        (store.root / "files" / made.training_file).unlink(missing_ok=True)
        assert (script.folder / "train.jsonl").stat().st_size > 0
        return -9 if len(executor.started) == 1 else all_four(script)

    executor = Scripted(plan, plan)
    model_folder(store.root / "model")
    done = attempt(store, executor)
    assert done is not None
    assert done.status == "succeeded"
