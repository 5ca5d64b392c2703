"""The rules of the house: lengths, names, docstrings, what an import may load, and that what ships is true."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.cli.main import VERBS
from hone.config.files import read_config
from hone.config.layers import resolve
from tests.faults import FAULTS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "hone"
LONGEST_FILE_LINES = 500
LONGEST_FUNCTION_LINES = 80
VAGUE_NAMES = re.compile(
    r"(util|helper|common|misc|manager|handler|processor|stuff|lib)s?", re.IGNORECASE
)
TORCH_FREE = ("cli", "config", "data", "runs", "wizard")
HEAVY = ("torch", "transformers", "peft", "accelerate")
UNSAFE_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def shipped(*suffixes: str) -> list[Path]:
    """Files that git knows or would take; every file where there is no git."""
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        found = [ROOT / line for line in done.stdout.splitlines()]
    else:
        found = [p for p in ROOT.rglob("*") if ".venv" not in p.parts]
    return sorted(path for path in found if path.suffix in suffixes and path.is_file())


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


PYTHON = shipped(".py")
SOURCES = [path for path in PYTHON if path.is_relative_to(PACKAGE)]
each_python = pytest.mark.parametrize("path", PYTHON, ids=name_of)
each_source = pytest.mark.parametrize("path", SOURCES, ids=name_of)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@each_python
def test_lengths(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_FILE_LINES, "split the file by noun"
    long = [
        f"{function.name} ({function.end_lineno - function.lineno + 1} lines)"
        for function in functions(ast.parse(text))
        if function.end_lineno is not None
        and function.end_lineno - function.lineno + 1 > LONGEST_FUNCTION_LINES
    ]
    assert not long, f"split {long}"


@each_python
def test_names_and_opening(path: Path) -> None:
    vague_parts = {
        part for part in path.relative_to(ROOT).with_suffix("").parts if VAGUE_NAMES.fullmatch(part)
    }
    in_arts_face = path.is_relative_to(
        PACKAGE / "art" / "utils"
    )  # a name that ART's scripts import
    assert not vague_parts - ({"utils"} if in_arts_face else set()), "a file is one noun"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree), "a file opens by saying what it is"
    vague = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and re.search(r"(Manager|Helper|Util|Handler|Processor)s?$", node.name)
    ]
    assert not vague, f"{vague}: say what it is"


@each_source
def test_public_names_exist_once(path: Path) -> None:
    """That `__all__` is sorted is ruff's RUF022."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    listed: list[str] = []
    known: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            known |= names
            if "__all__" in names and node.value is not None:
                listed = ast.literal_eval(node.value)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    assert len(set(listed)) == len(listed)
    if not any(isinstance(n, ast.FunctionDef) and n.name == "__getattr__" for n in tree.body):
        assert set(listed) <= known


@each_source
def test_nothing_that_runs_foreign_code(path: Path) -> None:
    """No pickle, no torch.load, no remote code, no shell strings, no eval."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & UNSAFE_IMPORTS
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in UNSAFE_IMPORTS
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"torch.load", "os.system", "os.popen", "eval", "exec"}, called
            for keyword in node.keywords:
                is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                assert not (keyword.arg in {"trust_remote_code", "shell"} and is_true), called


def test_light_rooms_load_no_torch() -> None:
    modules = ["hone", "hone.errors", "hone.pack"]
    for path in SOURCES:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[1] in TORCH_FREE:
            modules.append(".".join(part for part in parts if part != "__init__"))
    code = (
        "import importlib, json, sys\n"
        "loaded = {}\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded[name] = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]\n"
        "print(json.dumps(loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert {name: heavy for name, heavy in json.loads(done.stdout).items() if heavy} == {}


@pytest.mark.parametrize("path", shipped(".yaml", ".yml", ".toml"), ids=name_of)
def test_shipped_settings_parse(path: Path) -> None:
    if path.suffix == ".toml":
        tomllib.loads(path.read_text(encoding="utf-8"))
        return
    read_config(path)
    if path.is_relative_to(ROOT / "examples"):
        assert resolve(file=path).config.data.path, "an example names its rows"


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command line in a Markdown text's code blocks."""
    for block in re.findall(
        r"^```(?:sh|console|bash)?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL
    ):
        for line in block.splitlines():
            try:
                words = shlex.split(line.removeprefix("$ "), comments=True)
            except ValueError:  # a quotation that goes on in the next line
                words = line.removeprefix("$ ").partition("#")[0].split()
            if words:
                yield words


@pytest.mark.parametrize("page", [p for p in shipped(".md") if "tests" not in p.parts], ids=name_of)
def test_pages_name_commands_that_exist(page: Path) -> None:
    verbs = {verb.name for verb in VERBS} | {"--help", "--version"}
    rules = "".join((ROOT / name).read_text() for name in ("Makefile", "workflows/targets.mk"))
    targets = {
        name
        for names in re.findall(r"^([a-z][a-z -]*):", rules, flags=re.M)
        for name in names.split()
    }
    text = page.read_text(encoding="utf-8")
    for words in commands(text):
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words[0] == "hone":
            assert words[1] in verbs, words
        elif words[0] == "make":
            asked = words[3:] if words[1] == "-C" else words[1:]
            assert {w for w in asked if "=" not in w} <= targets
    for name in re.findall(r"`hone ([a-z]+)", text):
        assert name in verbs, f"`hone {name}`"
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_readme_tells_the_exit_codes() -> None:
    from hone.errors import EXIT_CODES

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", text, flags=re.MULTILINE))
    assert {int(code): meaning for code, meaning in rows.items()} == EXIT_CODES


def test_the_reference_is_what_the_code_says() -> None:
    from docs_from_code.pages import outdated

    assert outdated() == [], "run `make docs-reference`"


def test_constraints_pin_everything_once() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line) for line in lines)
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines}
    assert len(pinned) == len(lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted: list[str] = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    names = {re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", w)[0]).lower() for w in wanted}  # type: ignore[index]
    assert names <= pinned
    assert "torch==2.13.0" in lines


def test_every_fault_has_its_test() -> None:
    brought_about: dict[int, list[str]] = {}
    for path in PYTHON:
        if not path.is_relative_to(ROOT / "tests"):
            continue
        for function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            for decorator in function.decorator_list:
                words = ast.unparse(decorator)
                if found := re.fullmatch(r"pytest\.mark\.fault\((\d+)\)", words):
                    brought_about.setdefault(int(found[1]), []).append(function.name)
    assert sorted(brought_about) == sorted(FAULTS)
