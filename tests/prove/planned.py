"""A setting to plan and to run: a random model of some family and size, rows of tokens, settings; and what came out."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.folders import model_folder

ROOT = Path(__file__).resolve().parents[2]
_CHILD = Path(__file__).with_name("plan_child.py")


@dataclass(frozen=True)
class Setting:
    """A model's config class and sizes, rows as (count, shortest, longest, trained share), and settings."""

    name: str
    config: str
    sizes: dict[str, Any]
    rows: tuple[int, int, int, float]
    words: tuple[str, ...]
    beginning: int = 0
    """Tokens that all rows begin with."""
    seed: int = field(default=0)


@dataclass(frozen=True)
class Outcome:
    """What was planned, and what then happened."""

    planned: dict[str, Any]
    """`hone plan --json` before the run."""
    afterwards: dict[str, Any]
    """And after it, with what its rehearsal measured."""
    events: list[dict[str, Any]]
    peak_bytes: int

    def steps(self) -> list[dict[str, Any]]:
        """The `step` events."""
        return [event for event in self.events if event["event"] == "step"]


def llama(
    hidden: int, layers: int, intermediate: int, *, vocabulary: int = 8192, **more: Any
) -> dict[str, Any]:
    """Sizes of a Llama-like config."""
    heads = max(2, hidden // 64)
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "head_dim": 64,
        "max_position_embeddings": 16_384,
        "initializer_range": 0.02,
        **more,
    }


def gpt2(hidden: int, layers: int, *, vocabulary: int = 8192) -> dict[str, Any]:
    """Sizes of a GPT-2 config."""
    unset = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return {
        "vocab_size": vocabulary,
        "n_embd": hidden,
        "n_layer": layers,
        "n_head": max(2, hidden // 64),
        "n_positions": 16_384,
        "initializer_range": 0.02,
        **dict.fromkeys((*unset, "num_key_value_heads", "max_position_embeddings"), "unset"),
    }


def write_rows(
    path: Path, rows: tuple[int, int, int, float], *, beginning: int = 0, seed: int = 0
) -> Path:
    """Rows of token ids whose last part is trained, and whose `beginning` is one and the same."""
    count, shortest, longest, share = rows
    draw = random.Random(seed)
    same = [draw.randrange(5, 250) for _ in range(beginning)]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            length = draw.randint(shortest, longest)
            trained = max(1, int(length * share))
            own = [draw.randrange(5, 250) for _ in range(length)]
            row = {
                "input_ids": same + own,
                "weight": [0.0] * (beginning + length - trained) + [1.0] * trained,
            }
            file.write(json.dumps(row) + "\n")
    return path


def plan_and_run(folder: Path, setting: Setting) -> Outcome:
    """Plan the setting, run it, and plan it again, each in a process of its own."""
    words = prepare(folder, setting)
    environment = {**os.environ, "HONE_CACHE": str(folder / "cache")}
    planned = _hone(environment, "plan", *words, "--json").stdout
    done = _hone(environment, "train", *words, "--json")
    afterwards = _hone(environment, "plan", *words, "--json").stdout
    peak = int(done.stderr.splitlines()[-1].rpartition(" ")[2])
    return Outcome(json.loads(planned), json.loads(afterwards), _events(done.stdout), peak)


def run(folder: Path, setting: Setting, *more: str, name: str) -> list[dict[str, Any]]:
    """The events of a run of that name, which knows nothing of the runs before it."""
    words = [*prepare(folder, setting, output=name), *more]
    environment = {**os.environ, "HONE_CACHE": str(folder / f"{name}-cache")}
    return _events(_hone(environment, "train", *words, "--json").stdout)


def prepare(folder: Path, setting: Setting, *, output: str = "run") -> list[str]:
    """Make model and rows; the words that train one on the other."""
    model, rows = folder / "model", folder / "rows.jsonl"
    if not model.exists():
        model_folder(model, config=setting.config, seed=setting.seed, **setting.sizes)
    write_rows(rows, setting.rows, beginning=setting.beginning, seed=setting.seed)
    return [str(rows), "--model", str(model), "--output", str(folder / output), *setting.words]


def _events(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


def _hone(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(_CHILD), *words]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done
