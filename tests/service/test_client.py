"""The official client, as it is, against a service: what people's code for the hosted API does."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx2
import openai
import pytest

from tests.service.served import ROWS, Served, rows, serving, work


@pytest.fixture
def served(tmp_path: Path):
    with serving(tmp_path) as one:
        yield one


def wait(client: openai.OpenAI, job: str, status: str) -> None:
    end = time.monotonic() + 20
    while client.fine_tuning.jobs.retrieve(job).status != status:
        assert time.monotonic() < end, client.fine_tuning.jobs.retrieve(job)
        time.sleep(0.05)


def test_upload_create_poll_events_cancel(served: Served) -> None:
    client = served.client()
    file = client.files.create(file=("a/b/rows.jsonl", rows()), purpose="fine-tune")
    assert (file.status, file.bytes, file.filename) == ("processed", len(rows()), "rows.jsonl")
    assert client.files.wait_for_processing(file.id).status == "processed"
    assert client.files.content(file.id).read() == rows()

    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=file.id, suffix="My Bot", seed=5, metadata={"team": "a"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    )  # fmt: skip
    assert job.status == "validating_files"
    assert (job.seed, job.metadata, job.fine_tuned_model) == (5, {"team": "a"}, None)
    wait(client, job.id, "queued")
    told = client.fine_tuning.jobs.retrieve(job.id).hyperparameters
    assert (told.n_epochs, told.batch_size, told.learning_rate_multiplier) == (2, 2, 1.0)

    done = work(served.store)
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert (job.status, job.trained_tokens) == ("succeeded", 99)
    assert job.fine_tuned_model == done.tuned_name
    assert job.fine_tuned_model.startswith("ft:tiny:bob:my-bot:")
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [one.message for one in events][-1] == f"Created fine-tuning job: {job.id}"
    assert [one.data["step"] for one in events if one.type == "metrics"] == [3, 2, 1]
    checkpoint = next(iter(client.fine_tuning.jobs.checkpoints.list(job.id)))
    assert checkpoint.fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-3"
    assert checkpoint.metrics.train_loss == pytest.approx(1 / 3)

    names = [model.id for model in client.models.list()]
    assert names == ["tiny", checkpoint.fine_tuned_model_checkpoint, job.fine_tuned_model]
    assert client.models.retrieve(job.fine_tuned_model).owned_by == "bob"
    assert client.models.delete(job.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(job.fine_tuned_model)
    assert client.files.delete(file.id).deleted


def test_a_job_is_cancelled_paused_and_resumed(served: Served) -> None:
    client = served.client()
    job = client.fine_tuning.jobs.create(model="tiny", training_file=served.uploaded())
    wait(client, job.id, "queued")
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="it is cancelled") as caught:
        client.fine_tuning.jobs.cancel(job.id)
    assert caught.value.code == "invalid_job_state"


@pytest.mark.parametrize(
    ("said", "param", "match"),
    [
        ({"model": "gpt-9"}, "model", "base models are: tiny"),
        ({"training_file": "file-none"}, "training_file", "no file"),
        ({"validation_file": "file-none"}, "validation_file", "no file"),
        ({"method": {"type": "dpo"}}, "method.type", "supervised"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", "at most 0"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs", "51"),
        ({"hyperparameters": {"n_epoch": 1}}, "hyperparameters.n_epoch", "did you mean 'n_epochs'"),
        ({"suffix": "x" * 65}, "suffix", "at most 64"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": "1"}, "seed", "integer"),
        ({"extra_body": {"sufix": "x"}}, "sufix", "did you mean 'suffix'"),
        ({"metadata": {"k": 3}}, "metadata.k", "string"),
        ({"extra_body": {"x_hone": {"config": {"train": {"lr": 1}}}}}, "x_hone.config.train.lr", "train.learning_rate"),
        ({"extra_body": {"x_hone": {"config": {"output": {"dir": "/"}}}}}, "x_hone.config.output.dir", "not for a job"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(
    served: Served, said: dict[str, object], param: str, match: str
) -> None:
    asked = {"model": "tiny", "training_file": served.uploaded(), **said}
    with pytest.raises(openai.BadRequestError, match=match) as caught:
        served.client().fine_tuning.jobs.create(**asked)  # type: ignore[arg-type]
    error = caught.value
    assert error.param == param
    assert error.request_id
    assert error.type == "invalid_request_error"
    assert isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}


def test_bad_rows_are_told_by_line(served: Served) -> None:
    client = served.client()
    bad = rows(2) + b'{"messages": [{"role": "robot", "content": "x"}]}\n'
    file = client.files.create(file=("rows.jsonl", bad), purpose="fine-tune")
    assert file.status == "error"
    assert "line 3" in (file.status_details or "")
    with pytest.raises(openai.BadRequestError, match="line 3") as caught:
        client.fine_tuning.jobs.create(model="tiny", training_file=file.id)
    assert (caught.value.param, caught.value.code) == ("training_file", "invalid_training_file")
    told = httpx2.get(
        f"{client.base_url}files/{file.id}/x_hone/errors",
        headers={"authorization": f"Bearer {client.api_key}"},
    )
    found = [json.loads(line) for line in told.text.splitlines()]
    assert [one["line"] for one in found] == [3]
    assert "robot" in told.text


def test_large_files_are_checked_beside(tmp_path: Path) -> None:
    with serving(tmp_path, checking_bytes=0) as served:
        client = served.client()
        good, bad = served.uploaded(), served.uploaded(b'{"messages": 1}\n')
        jobs = [
            client.fine_tuning.jobs.create(model="tiny", training_file=one) for one in (good, bad)
        ]
        wait(client, jobs[0].id, "queued")
        wait(client, jobs[1].id, "failed")
        error = client.fine_tuning.jobs.retrieve(jobs[1].id).error
        assert error is not None
        assert (error.code, error.param) == ("invalid_training_file", "training_file")
        assert served.store.file(good, "bob").rows == ROWS
