"""Model folders by an enemy: refused by name, nothing run, within bounds of time and memory."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone.data.tokenizer import TextTokenizer
from hone.errors import ModelError
from hone.models.load import load_model
from hone.models.saved_adapter import read_adapter
from hone.models.source import check_weights, read_config
from tests.folders import chat_rows, model_folder

pytestmark = pytest.mark.fault(36)
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


def header(folder: Path, told: object, *, length: int | None = None, rest: bytes = b"") -> None:
    """Weights that say `told`, of which `length` bytes are claimed."""
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    said = struct.pack("<Q", len(text) if length is None else length)
    (folder / "model.safetensors").write_bytes(said + text + rest)


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"[]",
        b"nothing",
        b"[" * 50_000,
        b'{"a": ' * 50_000,
        {"a": None},
        {"a": {}},
        {"a": {"data_offsets": None}},
        {"a": {"data_offsets": [0]}},
        {"a": {"data_offsets": [0, "x"]}},
        {"a": {"data_offsets": [0, 10**30]}},
        {"a": {"data_offsets": {"1": 2}}},
    ],
)
def test_headers_that_are_none(folder: Path, told: object) -> None:
    header(folder, told)
    with pytest.raises(ModelError, match=r"damaged|truncated"):
        check_weights(folder)


@pytest.mark.parametrize("length", [0, 10 * 2**30, 2**63, 2**64 - 1])
def test_a_header_that_claims_to_be_huge(folder: Path, length: int) -> None:
    header(folder, {}, length=length, rest=b" " * 1000)
    with pytest.raises(ModelError, match="damaged"):
        check_weights(folder)


@pytest.mark.parametrize(
    ("told", "match"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"weight_map": ' + b"[" * 50_000, "too deeply"),
        (b"[]", "no JSON object"),
        (b'{"weight_map": []}', "damaged index"),
        (b'{"weight_map": {"a": 7}}', "outside its folder"),
        (b'{"weight_map": {"a": "../model.safetensors"}}', "outside its folder"),
        (b'{"weight_map": {"a": "/etc/passwd"}}', "outside its folder"),
        (b'{"weight_map": {"a": "gone.safetensors"}}', "missing weights"),
    ],
)
def test_an_index_that_is_none(folder: Path, told: bytes, match: str) -> None:
    (folder / INDEX).write_bytes(told)
    with pytest.raises(ModelError, match=match):
        check_weights(folder)


@pytest.mark.parametrize("name", ["config.json", INDEX, "tokenizer.json", "tokenizer_config.json"])
def test_a_file_of_ten_gigabytes_is_not_read(folder: Path, name: str) -> None:
    """It is sparse, so that only who reads it pays."""
    with (folder / name).open("wb") as file:
        file.truncate(10 * 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reads: dict[str, Callable[[Path], Any]] = {
        "config.json": read_config,
        INDEX: check_weights,
    }
    with pytest.raises(ModelError, match=r"are not read"):
        reads.get(name, TextTokenizer.load)(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"model_type": None}, "model_type"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"_attn_implementation_internal": "someone/kernels"}, "private switch"),
    ],
)
def test_a_config_that_asks_for_more(folder: Path, said: dict[str, Any], match: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | said))
    with pytest.raises(ModelError, match=match):
        read_config(folder)


def test_code_beside_a_known_type_is_not_run(folder: Path, tmp_path: Path) -> None:
    """A config of a family that transformers knows, which names code of its own besides."""
    import torch

    canary = tmp_path / "canary"
    (folder / "mine.py").write_text(f"import os\nos.mkdir({str(canary)!r})\n")
    own = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    for name, more in (
        ("config.json", {"auto_map": own, "trust_remote_code": True}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["mine.Tokenizer", None]}}),
    ):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_bytes()) | more))
    loaded = load_model(folder, dtype=torch.float32)
    assert type(loaded.model).__module__.startswith("transformers.models.")
    TextTokenizer.load(folder)
    assert not canary.exists()


@pytest.mark.parametrize("text", ["[]", "{}", "[" * 50_000, '{"base_model_name_or_path": 7}'])
def test_an_adapters_config_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError):
        read_adapter(tmp_path)


BOMBS = {
    "a loop": "{% for i in range(10**9) %}x{% endfor %}",
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "a power": "{{ 9**(9**9) }}",
    "a text": "{{ 'x' * 10**10 }}",
    "a centred text": "{{ 'x'.center(10**10) }}",
    "a format": "{{ '%10000000000d' % 1 }}",
    "a shift": "{{ (1).__lshift__(10**10) }}",
    "a list": "{{ ([1] * 10**10) | length }}",
    "a class": "{{ ''.__class__.__mro__ }}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_is_a_bomb(folder: Path, tmp_path: Path, name: str) -> None:
    """Through the command that a user would run, within 4 GiB of address space and a minute."""
    (folder / "chat_template.jinja").write_text(BOMBS[name])
    rows = chat_rows(tmp_path / "rows.jsonl", 3)
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32)); "
    words = "from hone.cli.main import main; main()"
    command = [sys.executable, "-c", limit + words, "preview", str(rows), "--model", str(folder)]
    environment = {**os.environ, "HONE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("not trained: the chat template refused it") == 3
