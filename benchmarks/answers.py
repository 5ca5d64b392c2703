"""Speed of many answers: tokens/s of `hone infer`'s batch, and of `generate` of transformers in the same process and run.

    python benchmarks/answers.py [--size 5m] [--prompts 128] [--rows 64] [--repeats 3] [--json FILE]

The same random weights answer the same prompts of several lengths, greedily. Where replies end by themselves, some tokens
of the model's own replies are made stops, so that they are of 1 to 128 tokens; both sides have the same stops.
transformers gets batches of the same size, padded on the left, in the order of the prompts and sorted by length. It knows no
conversation and no measure.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import machine
import models

LONGEST = 128
FIXED = 64
WORDS = [
    "what",
    "is",
    "the",
    "sum",
    "of",
    "two",
    "numbers",
    "when",
    "one",
    "them",
    "larger",
    "than",
]


def main() -> None:
    """Measure every side in turn, several times, and print a table."""
    asked = _arguments()
    results: dict[str, Any] = {"machine": machine.describe(), "size": asked.size, "cases": {}}
    print(machine.in_words(results["machine"]), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        folder = Path(made) / "model"
        models.make_tokenizer(folder, [" ".join(WORDS)] * 4)
        models.make_weights(folder, asked.size, positions=1024)
        for name, ends in {"replies of 64 tokens": False, "replies that end": True}.items():
            results["cases"][name] = _case(folder, asked, ends=ends)
            print(_table(name, results["cases"][name]), flush=True)
            if asked.json:
                asked.json.write_text(json.dumps(results, indent=2))


def _case(folder: Path, asked: argparse.Namespace, *, ends: bool) -> dict[str, Any]:
    import torch

    from hone.infer.completer import Sampling
    from hone.infer.many import Many
    from hone.infer.open import open_model

    torch.set_num_threads(asked.threads)
    completer = open_model(str(folder)).completer
    vocabulary = completer.renderer.tokenizer.vocab_size
    drawn = random.Random(0)
    prompts = [
        [drawn.randrange(3, vocabulary) for _ in range(drawn.randrange(16, 200))]
        for _ in range(asked.prompts)
    ]
    completer.stop_ids = ()
    completer.stop_ids = _stops(completer, prompts, drawn) if ends else ()
    sampling = Sampling(max_tokens=LONGEST if ends else FIXED)

    def hone() -> list[int]:
        with Many(completer, rows=asked.rows) as many:
            return [one.tokens for one in many.replies(prompts, sampling=sampling)]

    def transformers(order: list[int]) -> list[int]:
        return _generated(completer, prompts, order, asked.rows, sampling.max_tokens)

    plain = list(range(len(prompts)))
    by_length = sorted(plain, key=lambda i: len(prompts[i]))
    sides: dict[str, Callable[[], list[int]]] = {
        "Hone": hone,
        "transformers, as they come": lambda: transformers(plain),
        "transformers, sorted by length": lambda: transformers(by_length),
    }
    took: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    counts: dict[str, list[int]] = {}
    for _ in range(asked.repeats):
        for name, side in sides.items():
            began, worked = time.perf_counter(), time.process_time()
            counts[name] = side()
            took[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - worked)
    same = sum(
        a == b for a, b in zip(counts["Hone"], counts["transformers, as they come"], strict=True)
    )
    return {
        "prompts": len(prompts),
        "prompt_tokens": sum(map(len, prompts)),
        "tokens": {name: sum(count) for name, count in counts.items()},
        "same_lengths": same,
        "seconds": took,
        "cpu_seconds": cpu,
    }


def _stops(completer: Any, prompts: list[list[int]], drawn: random.Random) -> tuple[int, ...]:
    """A token from somewhere in the reply to every fourth prompt."""
    from hone.infer.completer import Sampling

    found = completer.continuations(prompts[::4], sampling=Sampling(max_tokens=LONGEST))
    return tuple({drawn.choice(reply.token_ids) for reply in found})


def _generated(
    completer: Any, prompts: list[list[int]], order: list[int], rows: int, most: int
) -> list[int]:
    """How many tokens each reply has, the stop included."""
    import torch
    from transformers import GenerationConfig

    stops = set(completer.stop_ids)
    config = GenerationConfig(
        max_new_tokens=most, do_sample=False, eos_token_id=sorted(stops) or None, pad_token_id=0
    )
    found: dict[int, int] = {}
    for begin in range(0, len(order), rows):
        batch = order[begin : begin + rows]
        widest = max(len(prompts[i]) for i in batch)
        ids = torch.zeros((len(batch), widest), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(batch):
            ids[row, widest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, widest - len(prompts[i]) :] = 1
        with torch.inference_mode():
            whole = completer.model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config
            )
        for i, reply in zip(batch, whole[:, widest:].tolist(), strict=True):
            ended = next((place for place, token in enumerate(reply) if token in stops), None)
            found[i] = len(reply) if ended is None else ended + 1
    return [found[i] for i in range(len(prompts))]


def _table(name: str, case: dict[str, Any]) -> str:
    lines = [
        f"\n{name}: {case['prompts']} prompts of {case['prompt_tokens']:,} tokens; equally long on both sides: "
        f"{case['same_lengths']}",
        "| side | tokens | tokens/s | tokens per CPU s | each run, s |",
        "|---|---|---|---|---|",
    ]
    for side, seconds in case["seconds"].items():
        tokens = case["tokens"][side]
        each = ", ".join(f"{one:.2f}" for one in seconds)
        cpu = tokens / median(case["cpu_seconds"][side])
        lines.append(
            f"| {side} | {tokens:,} | {tokens / median(seconds):,.0f} | {cpu:,.0f} | {each} |"
        )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(models.SIZES), default="5m")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
