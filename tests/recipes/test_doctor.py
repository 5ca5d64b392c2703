"""`hone doctor`: what it says of machines that it is made to see."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hone.cli.main import run
from hone.engine import machine, nvidia
from hone.errors import ConfigError
from hone.recipes import doctor
from hone.recipes.doctor import Check, examine
from tests.engine.test_nvidia import CARD, HOLDERS, answering, fake_tool


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def checks(topic: str, **more: object) -> dict[str, Check]:
    return {check.name: check for check in examine((topic,), **more).checks}  # type: ignore[arg-type]


def test_a_machine_without_a_card_is_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = checks("gpu").values()
    assert found.state == "ok"
    assert "training runs on the CPU" in found.says


def test_who_holds_a_cards_memory_is_named_with_what_to_type() -> None:
    answer = nvidia.Answer(nvidia.read_answer(CARD, HOLDERS), None, has_tool=True)
    found = checks("gpu", ask=lambda: answer)
    assert found["driver"].says == "NVIDIA driver 550.54"
    card = found["card 0"]
    assert card.state == "warning"
    assert "40,000 of 81,559 MiB used, 98% busy" in card.says
    assert "(pid 4242, 39,000 MiB)" in card.says
    assert card.remedy == "if it is yours and of no use: kill 4242 77"


def test_a_broken_driver_is_a_problem() -> None:
    answer = nvidia.Answer((), "Driver/library version mismatch", has_tool=True)
    (found,) = checks("gpu", ask=lambda: answer).values()
    assert found.state == "problem"
    assert found.says == "Driver/library version mismatch"
    assert found.remedy


def test_a_torch_for_cpus_beside_a_card_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: "2.13.0+cpu")
    answer = nvidia.Answer(nvidia.read_answer(CARD, ""), None, has_tool=True)
    assert checks("gpu", ask=lambda: answer)["torch"].state == "problem"


def test_little_memory_is_a_warning_that_names_who_holds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda: 2**30)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 64 * 2**30)
    monkeypatch.setattr(doctor, "_LARGE_HOLDER", 1)
    found = checks("memory")["memory"]
    assert found.state == "warning"
    assert "1.0 of 64.0 GiB free" in found.says
    assert "(pid " in found.says
    assert found.remedy


def test_a_full_disk_and_a_file_in_the_way_are_problems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = os.statvfs(tmp_path)
    assert usage.f_bavail > 0
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100 * 2**20})()
    )
    (tmp_path / "file").write_text("x")
    found = checks("disk", output=tmp_path / "file" / "runs")
    assert found["runs"].state == "problem"
    assert "is a file" in found["runs"].says
    assert found["cache"].state == "problem"
    assert "0.1 GiB free" in found["cache"].says


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    checks("disk", output=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_token_is_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {"HF_TOKEN": "hf_secretsecret"}
    (found,) = checks("hub", environment=environment).values()
    assert "hf_secret" not in json.dumps(examine(("hub",), environment=environment).to_json())
    assert found.state == "ok"


def test_threads_that_leave_cores_idle_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "allowed_cores", lambda: 8)
    found = checks("processor", environment={"OMP_NUM_THREADS": "2"})
    assert found["threads"].state == "warning"
    assert "2 of 8 cores" in found["threads"].says


def test_a_package_outside_of_its_range_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = doctor.Package("torch", ">=2.11,<2.16", "1.0", None)
    monkeypatch.setattr(doctor, "packages", lambda: [wrong])
    found = checks("packages")["torch"]
    assert found.state == "problem"
    assert found.remedy == "pip install 'torch>=2.11,<2.16'"


def test_a_topic_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as refused:
        examine(("dsik",))
    assert "'disk'" in str(refused.value.remedy)


def test_the_command_says_what_to_do_and_exits_by_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    fake_tool(tmp_path, answering(CARD, HOLDERS))
    monkeypatch.setattr(doctor, "installed", lambda name: "2.13.0")
    assert run(["doctor", "gpu"]) == 0
    told = capsys.readouterr().out
    assert "warning" in told
    assert "kill 4242 77" in told
    fake_tool(tmp_path, "echo broken; exit 1")
    assert run(["doctor", "gpu", "--json"]) == 4
    answer = json.loads(capsys.readouterr().out)
    assert answer["state"] == "problem"
    assert answer["checks"][0]["says"] == "broken"
