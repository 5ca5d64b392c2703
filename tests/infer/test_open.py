"""What a name opens: a model, an adapter, a run that finished or did not, a checkpoint; and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM

from hone.config.layers import resolve
from hone.errors import ConfigError, EnvironmentFault, ModelError
from hone.infer.completer import Sampling
from hone.infer.open import open_model
from hone.infer.place import find_place
from hone.recipes.train import train
from hone.runs.folder import RunFolder
from tests.folders import chat_rows, model_folder

SHORT = Sampling(max_tokens=8)
CONVERSATIONS = [
    [
        {"role": "system", "content": "the cat and the dog and the bird"},
        {"role": "user", "content": f"the {word} cat"},
    ]
    for word in ("red", "green", "blue", "one")
]


class Made(NamedTuple):
    """A base model and a run of each tuning method."""

    base: Path
    lora: Path
    full: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("runs")
    base = model_folder(root / "model")
    rows = chat_rows(root / "rows.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HONE_CACHE", str(root / "cache"))
        for method in ("lora", "full"):
            settings = [
                *("train.precision=fp32", "compute.threads=1", "train.batch_size=6"),
                *(f"data.path={rows}", f"model.name={base}", f"output.dir={root / method}"),
                *(f"tuning.method={method}", "train.learning_rate=1e-2", "train.epochs=4"),
                "train.save_steps=8",
            ]
            train(resolve(overrides=settings), command=["hone", "train"])
    return Made(base, root / "lora", root / "full")


def texts(name: Path, **options: bool) -> list[str]:
    opened = open_model(str(name), **options)
    return [reply.text for reply in opened.completer.replies(CONVERSATIONS, sampling=SHORT)]


def unfinished(run: Path, copy: Path) -> Path:
    """The run as it stood before its artifact was written."""
    shutil.copytree(run, copy)
    for name in (
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "tokenizer.json",
    ):
        (copy / name).unlink(missing_ok=True)
    for path in copy.glob("model*.safetensors"):
        path.unlink()
    RunFolder(copy).update_identity(finished=None)
    return copy


def test_a_run_answers_otherwise_than_its_base_which_stands_beside_it(made: Made) -> None:
    want = texts(made.base)
    for run in (made.lora, made.full):
        opened = open_model(str(run), with_base=True)
        assert opened.base is not None
        assert [r.text for r in opened.base.replies(CONVERSATIONS, sampling=SHORT)] == want
        assert texts(run) != want
    opened = open_model(str(made.lora), with_base=True)
    assert opened.base is not None
    assert opened.base.model is opened.completer.model


def test_an_adapter_alone_answers_as_its_run(made: Made, tmp_path: Path) -> None:
    alone = tmp_path / "adapter"
    alone.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(made.lora / name, alone / name)
    assert texts(alone) == texts(made.lora)
    # A base that lies within the adapter's folder is found by its name.
    shutil.copytree(made.base, alone / "its-base")
    config = json.loads((alone / "adapter_config.json").read_bytes())
    (alone / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": "its-base"})
    )
    assert find_place(str(alone)).base == alone / "its-base"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_unfinished_run_answers_by_its_newest_checkpoint_and_says_so(
    made: Made, tmp_path: Path, method: str
) -> None:
    run: Path = getattr(made, method)
    copy = unfinished(run, tmp_path / "run")
    opened = open_model(str(copy))
    assert any("not finished" in notice and "step 16" in notice for notice in opened.notices)
    assert texts(copy) == texts(run)
    # A damaged one is passed over, aloud.
    newest = copy / "checkpoints" / "step-00000016"
    (newest / "weights.safetensors").write_bytes(b"damaged")
    older = open_model(str(copy))
    assert any("cannot be used" in notice for notice in older.notices)
    assert any("step 8" in notice for notice in older.notices)
    first = copy / "checkpoints" / "step-00000008"
    assert texts(first) == [r.text for r in older.completer.replies(CONVERSATIONS, sampling=SHORT)]
    with pytest.raises(EnvironmentFault, match="cannot be used"):
        open_model(str(newest))


def test_a_run_is_found_by_its_name(made: Made) -> None:
    assert find_place("lora", root=made.lora.parent).folder == made.lora.parent / "lora"


def test_a_run_without_a_checkpoint_has_nothing_to_say_yet(made: Made, tmp_path: Path) -> None:
    copy = unfinished(made.lora, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(EnvironmentFault, match="no checkpoint yet"):
        open_model(str(copy))


def test_a_checkpoint_outside_its_run_is_refused(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.lora / "checkpoints" / "step-00000016", tmp_path / "step-00000016")
    with pytest.raises(EnvironmentFault, match="outside its run"):
        open_model(str(tmp_path / "step-00000016"))


def test_a_plain_model_has_no_base_to_compare_with(made: Made) -> None:
    with pytest.raises(ConfigError, match="nothing to compare"):
        open_model(str(made.base), with_base=True)


def test_what_cannot_be_opened_is_named(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a run nor a model"):
        open_model(str(tmp_path))
    with pytest.raises(ModelError, match="no such model"):
        open_model(str(tmp_path / "absent"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="is a file"):
        open_model(str(tmp_path / "file"))


def adapter_copy(made: Made, folder: Path) -> Path:
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(made.lora / name, folder / name)
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_model_name_or_path": None}, "does not name its base"),
        ({"base_model_name_or_path": "/no/such/base"}, "base is not there"),
        ({"megatron_config": {}}, "module to be imported"),
        ({"r": 3}, "does not fit"),
        ({"target_modules": ["q_proj"]}, "no place for"),
        ({"peft_type": "MAGIC"}, "does not fit"),
    ],
)
def test_an_adapter_that_lies_is_refused(
    made: Made, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    folder = adapter_copy(made, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_bytes())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=said):
        open_model(str(folder))


def test_an_adapter_whose_weights_are_pickled_or_missing_is_refused(
    made: Made, tmp_path: Path
) -> None:
    folder = adapter_copy(made, tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no adapter_model"):
        open_model(str(folder))
    (folder / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="pickled"):
        open_model(str(folder))


def test_an_adapter_that_lacks_a_weight_is_refused(made: Made, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = adapter_copy(made, tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="weights are missing"):
        open_model(str(folder))


def test_half_precision_weights_are_computed_in_float32_where_there_is_no_better(
    tmp_path: Path,
) -> None:
    folder = model_folder(tmp_path / "model")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16).save_pretrained(folder)
    opened = open_model(str(folder))
    want = torch.float16 if torch.cuda.is_available() else torch.float32
    assert opened.completer.model.dtype == want
