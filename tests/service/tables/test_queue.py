"""Which job a worker gets, and that only one holds it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hone.service.records import NewCheckpoint, NewEvent
from hone.service.store import Store
from hone.service.tables.follow import LostLease
from hone.serving.refusal import Refusal
from tests.service.jobs import BOB, queued, store_of


def test_a_job_is_claimed_once_and_ends_once(tmp_path: Path) -> None:
    store = store_of(tmp_path, max_running=9)
    made = queued(store)
    held = store.claim("w1", 60)
    assert held is not None
    assert (held.id, held.status, held.fence, held.attempts) == (made.id, "running", 1, 1)
    assert store.claim("w2", 60) is None
    store.add_events(held.id, 1, [NewEvent("Step 1/2", data={"step": 1})], offset=10,
                     checkpoints=[NewCheckpoint(1, "jobs/x/1", {"step": 1})], progress={"step": 1})  # fmt: skip
    done = store.release(held.id, 1, "succeeded", model_path="jobs/x/final", trained_tokens=7)
    assert (done.status, done.fine_tuned_model, done.trained_tokens) == (
        "succeeded",
        made.tuned_name,
        7,
    )
    assert store.model(made.tuned_name, BOB).path == "jobs/x/final"
    assert store.model(f"{made.tuned_name}:ckpt-step-1", BOB).kind == "checkpoint"
    assert store.model(made.tuned_name, "eve") is None
    with pytest.raises(LostLease):
        store.release(held.id, 1, "failed")
    assert [hook.type for hook in store.due_hooks()] == ["fine_tuning.job.succeeded"]


def test_a_lease_that_ran_out_fences_its_holder_off(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    job = queued(store)
    first = store.claim("w1", -1)
    second = store.claim("w2", 60)
    assert first is not None
    assert second is not None
    assert (second.id, second.fence, second.attempts) == (job.id, 2, 2)
    assert not store.renew(job.id, first.fence, 60)
    assert store.renew(job.id, second.fence, 60)
    for write in (
        lambda: store.add_events(job.id, first.fence, [NewEvent("late")], offset=5),
        lambda: store.release(job.id, first.fence, "succeeded"),
    ):
        with pytest.raises(LostLease):
            write()
    assert "late" not in [event.message for event in store.events(job.id)[0]]


def test_what_is_done_again_is_told_once(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    job = queued(store)
    for fence in (1, 2):
        assert store.claim("w", -1) is not None
        steps = [NewEvent(f"Step {n}", mark=f"step:{n}") for n in range(1, 3 + fence)]
        store.add_events(job.id, fence, steps, checkpoints=[NewCheckpoint(2, "p")])
    told = [event.message for event in store.events(job.id, limit=100)[0]][::-1]
    assert [one for one in told if one.startswith("Step")] == [f"Step {n}" for n in range(1, 5)]
    assert len(store.checkpoints(job.id)[0]) == 1


def test_owners_take_turns_then_priority_then_age(tmp_path: Path) -> None:
    store = store_of(tmp_path, "ann", max_running=2)
    store.create_key("bob", max_running=2, priority=5)
    ann = [queued(store, "ann") for _ in range(3)]
    bob = [queued(store, "bob") for _ in range(3)]
    claimed = [store.claim("w", 60) for _ in range(5)]
    assert [one and one.id for one in claimed] == [bob[0].id, ann[0].id, bob[1].id, ann[1].id, None]


@pytest.mark.parametrize(("wanted", "end"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_wish_outlives_the_worker_that_should_obey(tmp_path: Path, wanted: str, end: str) -> None:
    store = store_of(tmp_path)
    job = queued(store)
    assert store.claim("w1", 0.0) is not None
    assert store.want(job.id, BOB, wanted).status == "running"  # type: ignore[arg-type]
    assert store.claim("w2", 60) is None
    assert store.job(job.id).status == end


def test_states_change_lawfully(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    job = queued(store)
    with pytest.raises(Refusal, match="not paused") as caught:
        store.want(job.id, BOB, "run")
    assert (caught.value.status, caught.value.headers) == (400, {"x-should-retry": "false"})
    assert store.want(job.id, BOB, "pause").status == "paused"
    with pytest.raises(Refusal, match="it is paused"):
        store.want(job.id, BOB, "pause")
    assert store.want(job.id, BOB, "pause", again=True).status == "paused"
    assert store.claim("w", 60) is None
    assert store.want(job.id, BOB, "run").status == "queued"
    assert store.want(job.id, BOB, "cancel").status == "cancelled"
    assert store.want(job.id, BOB, "cancel", again=True).status == "cancelled"
    for wanted in ("run", "pause", "cancel"):
        with pytest.raises(Refusal, match="it is cancelled"):
            store.want(job.id, BOB, wanted)  # type: ignore[arg-type]
    with pytest.raises(Refusal, match="no job"):
        store.want(job.id, "eve", "cancel")


def test_many_workers_never_share_a_job(tmp_path: Path) -> None:
    """Threads and another process claim from one store at the same time."""
    store = store_of(tmp_path, max_running=100)
    made = {queued(store).id for _ in range(40)}
    code = (
        "import sys; from pathlib import Path; from hone.service.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "while job := store.claim('p', 60): print(job.id)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )

    def drain(name: str) -> list[str]:
        found = []
        while job := store.claim(name, 60):
            found.append(job.id)
        return found

    with ThreadPoolExecutor(4) as pool:
        claimed = [one for found in pool.map(drain, "abcd") for one in found]
    claimed += (child.communicate(timeout=60)[0] or "").split()
    assert sorted(claimed) == sorted(made)


def test_a_store_is_found_again(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    job = queued(store)
    store.close()
    again = Store(tmp_path)
    again.check()
    assert again.job(job.id, BOB).hyperparameters == {"n_epochs": 1}
