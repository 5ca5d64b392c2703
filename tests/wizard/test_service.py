"""The wizard beside a job service: what it offers, what its script says, and that the script trains there."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.wizard import choices
from hone.wizard.answers import Answers
from hone.wizard.flow import Flow
from hone.wizard.script import script
from hone.wizard.service import offer_of
from tests.backends.fake_service import BASE, KEY, FakeService, fake_service
from tests.folders import chat_rows
from tests.wizard.complete import complete, given, place


@pytest.fixture
def service() -> Iterator[FakeService]:
    with fake_service() as running:
        yield running


def at(folder: Path, **environment: str) -> Flow:
    """A flow that stands at the question about the backend."""
    flow = Flow(Answers(place(folder, **environment)))
    flow.give({"scenario": "inline"})
    flow.settle(defaults=False)
    return flow


def default(flow: Flow) -> str:
    question = flow.open_question()
    assert question is not None
    assert question.key == "backend"
    return str(question.default(flow.answers))


def test_without_a_key_training_is_here(tmp_path: Path) -> None:
    flow = at(tmp_path)
    assert default(flow) == "local"
    assert "needs HONE_API_KEY" in str(choices.backends(flow.answers)[0].note)
    theirs = at(tmp_path, WANDB_API_KEY="w")
    assert default(theirs) == "local", "that key opens no service of Hone"


def test_a_service_that_answers_is_recommended_with_its_models(
    tmp_path: Path, service: FakeService
) -> None:
    flow = at(tmp_path, HONE_API_KEY=KEY, HONE_BASE_URL=service.url)
    assert default(flow) == "serverless"
    serverless, local = choices.backends(flow.answers)
    assert "recommended" in serverless.label
    assert "recommended" not in local.label
    assert service.url in str(serverless.note)
    flow.give({"backend": "serverless"})
    flow.settle(defaults=False)
    assert [one.value for one in choices.models(flow.answers)] == [BASE]
    assert service.state.asked == [("GET", "/models")], "asked once"


@pytest.mark.parametrize("key", [KEY, "wrong"])
def test_one_that_does_not_answer_is_not(tmp_path: Path, service: FakeService, key: str) -> None:
    url = service.url if key == "wrong" else "http://127.0.0.1:9/v1"
    flow = at(tmp_path, HONE_API_KEY=key, HONE_BASE_URL=url)
    assert default(flow) == "local"
    assert "does not answer now" in str(choices.backends(flow.answers)[0].note)
    flow.give({"backend": "serverless"})
    flow.settle(defaults=False)
    assert [one.value for one in choices.models(flow.answers)] == list(choices.RECOMMENDED)


def test_an_address_that_is_none_is_no_service() -> None:
    assert offer_of({"HONE_API_KEY": "k", "HONE_BASE_URL": "ftp://x"}) is None
    assert offer_of({"HONE_BASE_URL": "http://127.0.0.1:9/v1"}) is None


@pytest.mark.parametrize(("framework", "key"), [("hone", "HONE_API_KEY"), ("art", "WANDB_API_KEY")])
def test_the_script_reads_the_key_that_its_framework_reads(
    tmp_path: Path, framework: str, key: str
) -> None:
    text = script(complete(tmp_path, "jsonl", backend="serverless", framework=framework))
    assert f'os.environ["{key}"]' in text
    assert f"Bearer ${key}" in text
    assert ("wandb.ai" in text) == (framework == "art")
    assert "hone serve" not in text


@pytest.mark.parametrize("scenario", ["jsonl", "inline"])
def test_the_script_trains_on_the_service(
    tmp_path: Path,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scenario: str,
) -> None:
    data = chat_rows(tmp_path / "rows.jsonl", 4)
    more = {"data": str(data), "rows": 4, "epochs": "2"} if scenario == "jsonl" else {}
    answers = complete(tmp_path, scenario, backend="serverless", base_model=BASE, **more)
    path = tmp_path / "sft_train.py"
    path.write_text(script(answers), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HONE_BASE_URL", service.url)
    monkeypatch.setenv("HONE_API_KEY", KEY)
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert "Model:          sft-project/agent-001@1" in printed
    assert f"curl {service.url}/chat/completions" in printed
    assert KEY not in printed
    (model,) = service.state.models.values()
    assert model["step"] == 1
    assert given(scenario)["name"] == model["name"]
