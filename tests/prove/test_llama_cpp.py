"""GGUF files, read by llama.cpp itself: the same logits, the same tokens, the same greedy answers.

llama.cpp's Python binding is built from source, in an environment of its own whose interpreter `HONE_LLAMACPP_PYTHON`
names: python -m venv DIR && DIR/bin/pip install llama-cpp-python==0.3.36.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from hone.config.layers import resolve
from hone.data.tokenizer import TextTokenizer
from hone.infer.open import open_model
from hone.recipes.export import Wanted, export
from hone.recipes.merge import merge
from hone.recipes.train import train
from tests.adapted import base_folder, tuned
from tests.data.test_gguf_vocabulary import pieces_folder
from tests.folders import WORDS, chat_rows, tokenizer_folder
from tests.models.test_gguf_file import FAMILIES, made

pytestmark = pytest.mark.slow

CHILD = Path(__file__).with_name("llama_child.py")
TEXTS = (
    "the cat sings",
    " two  spaces, three   and a tab\there",
    "It's 2026; don't pay $1,234.56 - or 100% (really)?!\n\n\n  indented\n",
    "Der Straßenfluß fließt. 猫は寝ている。 Кошка спит 😀👩‍🚀 العربية é\u0301",
    "def f(x):\n    return x**2  # squared\n\treturn",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "a\r\nb\rc\u00a0d\u2003e",
    "ThisIsCamelCase and SHOUTING and numbers 1 12 123 1234 12345 ½ Ⅻ ٣",
    "'S 'LL 'Ve we'RE 'tis",
)


def ask(**asked: Any) -> dict[str, Any]:
    """What llama.cpp says."""
    python = os.environ.get("HONE_LLAMACPP_PYTHON", "")
    if not python:
        pytest.skip(
            "llama.cpp's binding is not here: name an interpreter that has it in HONE_LLAMACPP_PYTHON"
        )
    done = subprocess.run(
        [python, str(CHILD)], input=json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in asked.items()}),
        capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def only_gguf(folder: Path) -> Path:
    (path,) = folder.glob("*.gguf")
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_computes_what_transformers_computes(tmp_path: Path, family: str) -> None:
    folder = made(tmp_path / "model", family)
    done = export(str(folder), Wanted("gguf", gguf_type="f32"), tmp_path / "gguf")
    rows = [np.random.default_rng(seed).integers(3, 300, 40).tolist() for seed in range(3)]
    said = ask(model=only_gguf(done.folder), rows=rows)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    for ids, told in zip(rows, said["logits"], strict=True):
        with torch.no_grad():
            wanted = model(input_ids=torch.tensor([ids])).logits[0].double().numpy()
        apart = np.sqrt(np.mean((np.array(told) - wanted) ** 2)) / wanted.std()
        print(f"{family}: logits differ by {apart:.1e} of their spread")
        # llama.cpp's GELU, which Gemma has, reads a table of half precision; SiLU is computed.
        assert apart < (1e-3 if family.startswith("gemma") else 1e-5)


def _texts(tokenizer: TextTokenizer) -> list[tuple[str, bool]]:
    return [(text, True) for text in TEXTS] + [(WORDS, False)]


def _is_normal(text: str) -> bool:
    import unicodedata

    return unicodedata.is_normalized("NFC", text)


@pytest.mark.parametrize("name", ["byte-level", "qwen2.5", "qwen3"])
def test_llama_cpp_reads_text_in_the_same_tokens(
    tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    folder = tmp_path / "model"
    if name == "byte-level":
        made(folder, "llama")
    else:
        shared: Path = request.getfixturevalue("shared")
        home = shared / "tokenizers" / name
        rows = max(TextTokenizer.load(home).vocab_size, 151_936)
        base_folder(folder, config="Qwen2Config", vocab_size=rows, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)  # fmt: skip
        for file in home.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer = TextTokenizer.load(folder)
    done = export(str(folder), Wanted("gguf"), tmp_path / "gguf")
    texts = [one for one in _texts(tokenizer) if name == "byte-level" or _is_normal(one[0])]
    said = ask(model=only_gguf(done.folder), texts=texts)
    for (text, _), ids in zip(texts, said["ids"], strict=True):
        assert ids == tokenizer.encode(text), text


@pytest.mark.parametrize("prefix", ["prepend", "none", "always"])
def test_llama_cpp_reads_pieces_in_the_same_tokens(tmp_path: Path, prefix: str) -> None:
    folder = tmp_path / "model"
    made(folder, "llama")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    pieces_folder(folder, prefix=prefix)
    tokenizer = TextTokenizer.load(folder)
    done = export(str(folder), Wanted("gguf"), tmp_path / "gguf")
    texts = [
        ("the cats sat.the cat", True),
        ("the  cat,at\nhe", True),
        ("ÄÖ 猫 thethe catcat", True),
        ("<s>the cat</s>the cats", True),
    ]
    said = ask(model=only_gguf(done.folder), texts=texts)
    for (text, _), ids in zip(texts, said["ids"], strict=True):
        assert ids == tokenizer.encode(text), text


def _greedy(
    model: Any, ids: list[int], ends: set[int], tokens: int
) -> tuple[list[int], list[float]]:
    """The likeliest tokens, and by how much each was likelier than the second."""
    reply: list[int] = []
    gaps: list[float] = []
    for _ in range(tokens):
        with torch.no_grad():
            last = (
                model(input_ids=torch.tensor([[*ids, *reply]]), use_cache=False)
                .logits[0, -1]
                .float()
            )
        top = last.topk(2).values
        gaps.append(float(top[0] - top[1]))
        reply.append(int(last.argmax()))
        if reply[-1] in ends:
            break
    return reply, gaps


@pytest.mark.parametrize("family", ["LlamaConfig", "Qwen3Config", "Gemma2Config"])
def test_adapter_merged_model_and_gguf_answer_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    numbers: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "initializer_range": 0.1,
    }
    if family == "Gemma2Config":
        numbers |= {"head_dim": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": True}
    base = base_folder(tmp_path / "base", config=family, **numbers)
    train(
        resolve(
            overrides=[
                f"model.name={base}", f"data.path={chat_rows(tmp_path / 'rows.jsonl', rows=48)}",
                f"output.dir={tmp_path / 'run'}", "train.max_steps=60", "train.batch_size=8",
                "train.learning_rate=1e-2", "compute.micro_batch_tokens=1024", "train.precision=fp32",
                "tuning.lora.modules_to_save=[embeddings, head]" if family != "Gemma2Config" else "tuning.lora.r=16",
            ]
        )
    )  # fmt: skip
    run = tmp_path / "run"
    merged = merge(str(run))
    done = export(str(run), Wanted("gguf", gguf_type="f16"))
    words = WORDS.split()
    opened = open_model(str(run))
    renderer = opened.completer.renderer
    prompts = [
        renderer.prompt([
            {"role": "system", "content": "the cat and the dog and the bird"},
            {"role": "user", "content": f"the {words[i % 10]} {words[(i * 7 + i // 10) % 13]}"},
        ])
        for i in range(50)
    ]  # fmt: skip
    ends = {2}
    said = ask(model=only_gguf(done.folder), prompts=prompts, tokens=16, ends=[2])
    adapted = tuned(base, run).eval()
    whole = AutoModelForCausalLM.from_pretrained(merged.folder, dtype=torch.float32).eval()
    same = 0
    for ids, (reply, _) in zip(prompts, said["replies"], strict=True):
        wanted, gaps = _greedy(adapted, ids, ends, 16)
        others = {"merged": _greedy(whole, ids, ends, 16)[0], "gguf": reply}
        for name, other in others.items():
            first = next(
                (i for i, (a, b) in enumerate(zip(wanted, other, strict=False)) if a != b), None
            )
            if first is None:
                assert wanted == other
                same += 1
                continue
            # Half precision moves a logit by about a thousandth of the logits' size.
            print(
                f"{family}, {name}: parts at token {first}, where the two likeliest are {gaps[first]:.1e} apart"
            )
            assert name == "gguf"
            assert gaps[first] < 2e-2
    print(f"{family}: {same} of 100 answers are the same, the others are near-ties")
    assert same >= 90
    lengths = {len(_greedy(whole, ids, ends, 16)[0]) for ids in prompts[:10]}
    assert min(lengths) < 16, "the model learned to end its turns"


def test_the_file_carries_the_chat_template(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", "llama")
    tokenizer_folder(folder)
    done = export(str(folder), Wanted("gguf"), tmp_path / "gguf")
    said = ask(model=only_gguf(done.folder))
    assert said["template"] == (folder / "chat_template.jinja").read_text()
