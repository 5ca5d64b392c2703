"""Hone beside LLaMA-Factory on LLaMA-Factory's own example files: tokens that are trained, the first loss, the time of both.

    python benchmarks/llamafactory_door.py --examples FOLDER --python PYTHON [--rows 32] [--steps 4] [--json FILE]
    python benchmarks/llamafactory_door.py --examples FOLDER --python PYTHON --templates     # rows alone

FOLDER holds LLaMA-Factory's example YAMLs, PYTHON is the interpreter of an environment that has it (or HONE_LLAMAFACTORY).
Each file that Hone reads is given to both as it is, but for the model (one tiny random one), the rows (made here, in the
form that its datasets have), the device (a CPU, so float32 and no DeepSpeed) and that rows keep their order.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from hone.config.files import read_config
from hone.config.layers import resolve
from hone.config.values import fit
from hone.config.write import flat_yaml
from hone.errors import HoneError
from hone.recipes.source import read_source
from hone.runs.events import read_events

HERE = Path(__file__).resolve().parent
DATASETS = ("identity", "alpaca_en_demo")
TEMPLATES = ("qwen", "qwen3_nothink", "llama3", "chatml", "alpaca", "default")
_WORDS = [
    "red",
    "green",
    "blue",
    "one",
    "two",
    "three",
    "four",
    "cat",
    "dog",
    "bird",
    "runs",
    "sleeps",
    "sings",
    "the",
    "a",
    "and",
    "never",
    "always",
]
_CONTROL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<|eom_id|>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
]  # fmt: skip
_DEVICE_KEYS = ("deepspeed", "bf16", "trust_remote_code", "fsdp")
_NOT_THERE = ("quantization_bit",)  # its environment has no bitsandbytes


@dataclass
class Pair:
    """One example file: what both made of it."""

    name: str
    rows: int = 0
    same_tokens: int = 0
    same_trained: int = 0
    trained: tuple[int, int] = (0, 0)
    """Trained tokens of all rows: LLaMA-Factory's, Hone's."""
    first_loss: tuple[float, float] = (0.0, 0.0)
    seconds: tuple[float, float] = (0.0, 0.0)
    """Wall time of the whole commands."""
    training_seconds: tuple[float, float] = (0.0, 0.0)
    differences: list[str] = field(default_factory=list)


def make_model(folder: Path, *, hidden: int, layers: int) -> Path:
    """A random Llama whose tokenizer has the control tokens of every template in the examples."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=_CONTROL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator([" ".join(_WORDS), "user assistant system You are Qwen"] * 4, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<|begin_of_text|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    ).save_pretrained(folder)  # fmt: skip
    shape = LlamaConfig(
        vocab_size=512, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=3, eos_token_id=2,
        pad_token_id=0, initializer_range=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(shape, dtype=torch.float32).save_pretrained(folder)
    return folder


def make_rows(folder: Path, rows: int) -> Path:
    """Alpaca rows of two datasets, some with an input, some longer than others."""
    folder.mkdir(parents=True, exist_ok=True)
    info: dict[str, Any] = {}
    for offset, name in enumerate(DATASETS):
        made: list[dict[str, str]] = []
        for place in range(rows):
            at = place * 3 + offset
            words = [_WORDS[(at + step * (place + 1)) % len(_WORDS)] for step in range(4 + at % 37)]
            half = len(words) // 2
            given = " ".join(words[:3]) if place % 2 else ""
            made.append(
                {
                    "instruction": " ".join(words[:half]),
                    "input": given,
                    "output": " ".join(words[half:]) + ".",
                }
            )
        (folder / f"{name}.json").write_text(json.dumps(made), encoding="utf-8")
        info[name] = {"file_name": f"{name}.json"}
    info |= _conversations(folder)
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def _conversations(folder: Path) -> dict[str, Any]:
    """Two ShareGPT datasets: talks of several turns, and agents that call a tool."""
    talks: list[dict[str, Any]] = []
    agents: list[dict[str, Any]] = []
    tool = {
        "name": "find",
        "description": "Find one.",
        "parameters": {"type": "object", "properties": {}},
    }
    for place in range(8):
        said = [
            " ".join(_WORDS[(place + i) % 9 : (place + i) % 9 + 3 + place % 4]) for i in range(4)
        ]
        names = ("human", "gpt", "human", "gpt")
        turns = [{"from": name, "value": text} for name, text in zip(names, said, strict=True)]
        talks.append({"conversations": turns, "system": "the cat" if place % 2 else ""})
        call = {"name": "find", "arguments": {"what": said[1], "count": place}}
        calls = [turns[0], {"from": "function_call", "value": json.dumps(call)}]
        calls += [{"from": "observation", "value": '{"found": "a dog"}'}, turns[3]]
        agents.append({"conversations": calls, "system": "the dog", "tools": json.dumps([tool])})
    info: dict[str, Any] = {}
    for name, made in (("talks", talks), ("agents", agents)):
        (folder / f"{name}.json").write_text(json.dumps(made), encoding="utf-8")
        columns = {"messages": "conversations", "system": "system"} | (
            {"tools": "tools"} if name == "agents" else {}
        )
        info[name] = {"file_name": f"{name}.json", "formatting": "sharegpt", "columns": columns}
    return info


def adapted(
    file: Path, model: Path, rows: Path, output: Path, asked: argparse.Namespace
) -> dict[str, Any] | str:
    """The file's own keys with the model, the size of the data and the device changed; or why it is not run."""
    told = fit(read_config(file), Any)
    assert isinstance(told, dict)
    for key in _NOT_THERE:
        if told.get(key):
            return f"{key}: its environment has no bitsandbytes"
    values = {key: value for key, value in told.items() if key not in _DEVICE_KEYS}
    return values | {
        "model_name_or_path": str(model), "dataset_dir": str(rows), "output_dir": str(output),
        "max_samples": asked.rows, "max_steps": asked.steps, "use_cpu": True, "disable_shuffling": True,
        "logging_steps": 1, "save_strategy": "no", "preprocessing_num_workers": 1, "dataloader_num_workers": 0,
        "disable_tqdm": True, "report_to": "none", "overwrite_cache": True, "plot_loss": False,
    }  # fmt: skip


def measure(
    file: Path, model: Path, rows: Path, work: Path, asked: argparse.Namespace
) -> Pair | str:
    """Both systems on one example; or why it is not run."""
    values = adapted(file, model, rows, work / "theirs", asked)
    if isinstance(values, str):
        return values
    theirs = work / "theirs.yaml"
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_text(flat_yaml(values), encoding="utf-8")
    ours = work / "ours.yaml"
    ours.write_text(flat_yaml(values | {"output_dir": str(work / "ours")}), encoding="utf-8")
    pair = Pair(file.name)
    _compare_rows(pair, theirs, ours, work, asked)
    environment = _surroundings(work)
    began = time.perf_counter()
    _run(
        [asked.python, "-m", "llamafactory.cli", "train", str(theirs)],
        environment,
        work / "theirs.log",
    )
    middle = time.perf_counter()
    _run(
        [sys.executable, "-m", "hone", "train", str(ours), "compute.threads=1"],
        environment,
        work / "ours.log",
    )
    pair.seconds = (middle - began, time.perf_counter() - middle)
    log = (work / "theirs" / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    told = json.loads((work / "theirs" / "train_results.json").read_text(encoding="utf-8"))
    steps = [one for one in read_events(work / "ours" / "events.jsonl") if one.name == "step"]
    state = json.loads((work / "theirs" / "trainer_state.json").read_text(encoding="utf-8"))
    losses = [one["loss"] for one in state["log_history"] if "loss" in one] or [
        json.loads(log[0])["loss"]
    ]
    pair.first_loss = (float(losses[0]), float(steps[0]["loss"]))
    pair.training_seconds = (
        float(told["train_runtime"]),
        float(steps[-1].time - steps[0].time) * len(steps) / max(1, len(steps) - 1),
    )
    return pair


def _compare_rows(
    pair: Pair, theirs: Path, ours: Path, work: Path, asked: argparse.Namespace
) -> None:
    out = work / "rows.json"
    script = str(HERE / "llamafactory_rows.py")
    _run([asked.python, script, str(theirs), str(out)], _surroundings(work), work / "rows.log")
    told = json.loads(out.read_text(encoding="utf-8"))
    os.environ["HONE_CACHE"] = str(work / "cache")
    source = read_source(resolve(file=ours).config, lambda *_, **__: None)
    prepared = source.prepared
    for part in prepared.files:
        part.finish()
    made = [one for row in range(prepared.train.num_rows) for one in prepared.train.examples(row)]
    pair.rows = len(told)
    if len(made) != len(told):
        pair.differences.append(f"{len(told)} rows there, {len(made)} here")
    for place, (row, example) in enumerate(zip(told, made, strict=False)):
        ids, trained = example.input_ids.tolist(), example.weight.nonzero()[0].tolist()
        pair.same_tokens += ids == row["ids"]
        pair.same_trained += trained == row["trained"]
        pair.trained = (pair.trained[0] + len(row["trained"]), pair.trained[1] + len(trained))
        if (ids != row["ids"] or trained != row["trained"]) and len(pair.differences) < 3:
            decode = source.tokenizer.decode
            pair.differences.append(
                f"row {place}: there {decode(row['ids'])!r}, {len(row['trained'])} trained; here {decode(ids)!r}, "
                f"{len(trained)} trained"
            )
    prepared.close()


def _surroundings(work: Path) -> dict[str, str]:
    return {
        **os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(work / "hf"), "HONE_CACHE": str(work / "cache"), "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }  # fmt: skip


def _run(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    with log.open("wb") as file:
        done = subprocess.run(
            arguments, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace")[-1500:]
        raise SystemExit(f"{' '.join(arguments)} ended with code {done.returncode}:\n{tail}")


def templates(
    example: Path, model: Path, rows: Path, folder: Path, asked: argparse.Namespace
) -> None:
    """What both make of conversations, of calls with tools, and of rows that are cut, by each template."""
    kinds = {"talks": {}, "agents": {}, "talks, cut at 40": {"cutoff_len": 40}}
    print(
        "| rows | template | same tokens | same trained | trained tokens (theirs, Hone's) |\n|---|---|---|---|---|"
    )
    for kind, more in kinds.items():
        for name in TEMPLATES:
            work = folder / f"{kind}-{name}"
            work.mkdir()
            values = adapted(example, model, rows, work / "out", asked)
            assert isinstance(values, dict)
            values |= {"dataset": kind.partition(",")[0], "template": name, **more}
            file = work / "both.yaml"
            file.write_text(flat_yaml(values), encoding="utf-8")
            pair = Pair(name)
            try:
                _compare_rows(pair, file, file, work, asked)
            except (HoneError, SystemExit) as error:
                print(
                    f"| {kind} | {name} | {str(error).strip().splitlines()[-1][:200]} |", flush=True
                )
                continue
            told = f"{pair.same_tokens} of {pair.rows} | {pair.same_trained} of {pair.rows}"
            print(
                f"| {kind} | {name} | {told} | {pair.trained[0]:,}, {pair.trained[1]:,} |",
                flush=True,
            )
            for text in pair.differences[:1]:
                print(f"  {text}", flush=True)


def table(pairs: list[Pair]) -> str:
    """One line for each example, as Markdown."""
    lines = [
        "| example | rows | same tokens | same trained | trained tokens (theirs, Hone's) | first loss (theirs, Hone's) "
        "| whole command, s | training, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in pairs:
        lines.append(
            f"| {one.name} | {one.rows} | {one.same_tokens} | {one.same_trained} | {one.trained[0]:,}, {one.trained[1]:,} "
            f"| {one.first_loss[0]:.6f}, {one.first_loss[1]:.6f} | {one.seconds[0]:.1f}, {one.seconds[1]:.1f} "
            f"| {one.training_seconds[0]:.2f}, {one.training_seconds[1]:.2f} |"
        )
        lines += [f"  {text}" for text in one.differences]
    return "\n".join(lines)


def main() -> None:
    """Measure each example that Hone reads, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=Path, required=True)
    parser.add_argument("--python", default=os.environ.get("HONE_LLAMAFACTORY"))
    parser.add_argument("--only", help="examples whose name holds this")
    parser.add_argument(
        "--templates", action="store_true", help="compare rows by template; nothing is trained"
    )
    parser.add_argument("--rows", type=int, default=32, help="of each dataset")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if not asked.python:
        raise SystemExit("name LLaMA-Factory's Python: --python PYTHON, or HONE_LLAMAFACTORY")
    os.environ.pop("HONE_LLAMAFACTORY", None)
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory(prefix="hone-door-") as place:
        folder = Path(place)
        model = make_model(folder / "model", hidden=asked.hidden, layers=asked.layers)
        rows = make_rows(folder / "rows", asked.rows)
        os.chdir(folder)
        (folder / "data").symlink_to(rows)
        if asked.templates:
            example = next(asked.examples.glob("train_lora__*_lora_sft.yaml"))
            templates(example, model, rows, folder, asked)
            return
        for file in sorted(asked.examples.glob("*.yaml")):
            if asked.only and asked.only not in file.name:
                continue
            try:
                resolve(file=file)
            except HoneError as error:
                print(f"{file.name}: Hone refuses it: {error.what.splitlines()[0]}", flush=True)
                continue
            found = measure(file, model, rows, folder / file.stem, asked)
            if isinstance(found, str):
                print(f"{file.name}: not run: {found}", flush=True)
                continue
            pairs.append(found)
            print(table([found]).splitlines()[2:], flush=True)
    print(table(pairs))
    if asked.json:
        asked.json.write_text(
            json.dumps([asdict(one) for one in pairs], indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
