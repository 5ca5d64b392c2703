"""Every path, as the OpenAPI document has it: whatever is sent, the answer keeps the document."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
)

from hone.service.app import make_paths
from hone.service.contract import PLACE, text_of
from tests.service.served import Served, serving, work

DOCUMENT = json.loads(PLACE.read_text(encoding="utf-8"))
schema = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("service")) as one:
        yield one


def test_the_document_is_the_applications() -> None:
    """`python -m hone.service.contract` writes it anew."""
    assert PLACE.read_text(encoding="utf-8") == text_of(make_paths())


@schema.parametrize()
@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_keep_the_document(case: schemathesis.Case, served: Served) -> None:
    headers = {"authorization": f"Bearer {served.key}"}
    answer = case.call(base_url=served.service.url, headers=headers)
    case.validate_response(answer, checks=CHECKS)
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400:
        told = answer.json()["error"]
        assert set(told) == {"message", "type", "param", "code"}
        assert told["message"]


def test_good_answers_keep_the_document(served: Served) -> None:
    """What generated requests seldom reach: things that are there."""
    client = served.client()
    job = client.fine_tuning.jobs.create(model="tiny", training_file=served.uploaded())
    while client.fine_tuning.jobs.retrieve(job.id).status != "queued":
        pass
    name = work(served.store).tuned_name
    checkpoint = f"{name}:ckpt-step-3"
    headers = {"authorization": f"Bearer {served.key}"}
    permissions = f"/v1/fine_tuning/checkpoints/{checkpoint}/permissions"
    made = httpx2.post(
        served.service.url + permissions, headers=headers, json={"project_ids": ["ann"]}
    )
    assert made.status_code == 200
    places = {
        "/v1/files": {}, "/v1/files/{file_id}": {"file_id": job.training_file}, "/v1/fine_tuning/jobs": {},
        "/v1/fine_tuning/jobs/{fine_tuning_job_id}": {"fine_tuning_job_id": job.id},
        "/v1/fine_tuning/jobs/{fine_tuning_job_id}/events": {"fine_tuning_job_id": job.id},
        "/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints": {"fine_tuning_job_id": job.id},
        "/v1/fine_tuning/checkpoints/{name}/permissions": {"name": checkpoint},
        "/v1/models": {}, "/v1/models/{model}": {"model": name},
    }  # fmt: skip
    for path, values in places.items():
        case = schema[path]["GET"].Case(path_parameters=values)
        answer = case.call(base_url=served.service.url, headers=headers)
        assert answer.status_code == 200, answer.text
        case.validate_response(answer, checks=CHECKS)
