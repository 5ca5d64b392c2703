"""`run_sft.sh` and its two companions: each option, their exit codes, what they count and what they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.desk import WORKFLOWS, agent_rows, project, shows_instead_of_training, typed

RUN = "bash workflows/run_sft.sh"
OPTIONS = {
    "--model": ("some model", "model.name", "some model"),
    "--template": ("llama3", "data.template", "llama3"),
    "--output-dir": ("out dir", "output.dir", "out dir"),
    "--epochs": ("3", "train.epochs", 3.0),
    "--lr": ("0.00001", "train.learning_rate", 1e-5),
    "--batch-size": ("3", "train.batch_size", 6),
    "--grad-accum": ("5", "train.batch_size", 5),
    "--cutoff-len": ("600", "data.max_length", 599),
    "--finetuning-type": ("lora", "tuning.method", "lora"),
    "--deepspeed": ("workflows/ds_zero3.json", "compute.deepspeed", "workflows/ds_zero3.json"),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spaces in its path, where nothing is trained."""
    folder = tmp_path_factory.mktemp("a desk") / "with spaces"
    folder.mkdir()
    return project(folder)


@pytest.fixture(scope="module")
def shows(desk: Path) -> Path:
    return shows_instead_of_training(desk)


def asked(desk: Path, shows: Path, words: str) -> dict[str, Any]:
    """The configuration that the third step comes to."""
    done = typed(f"{RUN} data.json {words}", desk, hone=shows)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])["config"]


def value(config: Any, name: str) -> Any:
    for key in name.split("."):
        config = config[key]
    return config


def test_its_defaults_are_those_of_the_document(desk: Path, shows: Path) -> None:
    config = asked(desk, shows, "--skip-process")
    expected = {
        "model.name": "Qwen/Qwen2.5-7B-Instruct", "data.template": "qwen", "train.epochs": 2.0,
        "train.learning_rate": 5e-6, "train.batch_size": 2, "data.max_length": 11_999, "tuning.method": "full",
        "compute.deepspeed": None, "train.schedule": "cosine", "train.warmup_ratio": 0.0, "train.precision": "bf16",
        "output.dir": str(desk / "workflows/saves/Qwen2.5-7B-Instruct/tau2_sft"), "data.path": str(desk / "data.json"),
        "train.save_steps": 50,
    }  # fmt: skip
    assert {name: value(config, name) for name in expected} == expected


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_reaches_the_training(desk: Path, shows: Path, option: str) -> None:
    given, name, expected = OPTIONS[option]
    config = asked(desk, shows, f"--skip-process {option} '{given}'")
    assert value(config, name) == expected


def test_the_dataset_has_the_name_that_it_is_given(desk: Path, shows: Path) -> None:
    config = asked(desk, shows, "--dataset-name other_set")
    info = json.loads((desk / "workflows/workdir/other_set/dataset_info.json").read_text())
    assert list(info) == ["other_set"]
    assert (
        info["other_set"]["file_name"]
        == config["data"]["path"]
        == str(desk / "data_processed.json")
    )
    assert config["output"]["dir"].endswith("saves/Qwen2.5-7B-Instruct/other_set")


def test_a_custom_file_replaces_the_options_and_says_so(desk: Path, shows: Path) -> None:
    (desk / "mine.yaml").write_text(
        "model_name_or_path: base\nstage: sft\ndataset: tau2_sft\ndataset_dir: workflows/workdir/tau2_sft\n"
        "template: chatml\nlearning_rate: 1e-3\noutput_dir: elsewhere\nreport_to: wandb\n"
    )
    done = typed(f"{RUN} data.json --skip-process --lr 1 --config mine.yaml", desk, hone=shows)
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout.splitlines()[-1])["config"]
    assert (config["train"]["learning_rate"], config["output"]["dir"]) == (1e-3, "elsewhere")
    assert config["output"]["trackers"] == ["wandb"]
    assert "note: --lr has no effect on the training: --config mine.yaml replaces it" in done.stdout
    assert "--skip-process has no effect" not in done.stdout
    assert not (desk / "workflows/saves").exists(), "no folder that nothing is saved in"


def test_skipping_leaves_the_rows_as_they_are(desk: Path, shows: Path) -> None:
    asked(desk, shows, "--skip-process --dataset-name skipped")
    about = json.loads((desk / "workflows/workdir/skipped/dataset_info.json").read_text())[
        "skipped"
    ]
    assert about["file_name"] == str(desk / "data.json")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "no input"),
        ("gone.json", "no such file: gone.json"),
        ("data.json --lrr 1", "unknown option: --lrr"),
        ("data.json --lr", "--lr needs a value"),
        ("data.json --lr --epochs 2", "--lr needs a value"),
        ("data.json input.json", "two inputs"),
        ("data.json --finetuning-type freeze", "--finetuning-type is full or lora"),
        ("data.json --config gone.yaml", "no such file: gone.yaml"),
        ("data.json --deepspeed gone.json", "no such file: gone.json"),
    ],
)  # fmt: skip
def test_wrong_words_are_refused_before_anything_is_done(desk: Path, words: str, said: str) -> None:
    done = typed(f"{RUN} {words}", desk, hone=Path("/bin/false"))
    assert done.returncode == 2
    assert f"run_sft.sh: {said}" in done.stderr
    assert "usage: run_sft.sh INPUT.json" in done.stderr


def test_help_names_every_option_and_the_exit_codes(desk: Path) -> None:
    done = typed(f"{RUN} --help", desk)
    assert done.returncode == 0
    for option in (*OPTIONS, "--dataset-name", "--skip-process", "--config"):
        assert option in done.stdout
    assert "exit codes: 0 done, 2 usage, 3" in done.stdout


def test_processing_checks_calls_where_it_is_told_the_tools(desk: Path) -> None:
    agent = WORKFLOWS.parent / "examples" / "agent"
    command = "bash workflows/process_data_pipeline.sh 'input.json' 'out put.json'"
    plain = typed(command, desk)
    assert plain.returncode == 0, plain.stderr
    assert "CONFIG_FILE is not set" in plain.stdout
    assert len(json.loads((desk / "out put.json").read_text())) == 6
    told = typed(
        command,
        desk,
        CONFIG_FILE=str(agent / "tools.json"),
        PROMPTS_FILE=str(agent / "prompts.json"),
    )
    assert told.returncode == 0, told.stderr
    first = json.loads((desk / "out put.json").read_text())[0]
    assert first["system"].startswith("You serve the customers of a retail shop.")
    assert not list(desk.glob("*_step*.json"))
    assert typed("bash workflows/process_data_pipeline.sh gone.json", desk).returncode == 2
    assert typed("bash workflows/process_data_pipeline.sh", desk).returncode == 2


def test_preparing_counts_what_cannot_be_used_and_leaves_it_out(desk: Path) -> None:
    good = agent_rows(2)
    turn = {"from": "gpt", "value": "yes"}
    bad: list[Any] = [
        {"conversations": []},
        {"conversations": [turn], "system": ""},
        {"conversations": [{"from": "human", "value": " "}, turn]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]},
        {"conversations": [{"from": "bot", "value": "a"}, turn]},
        {"conversations": [{"from": "human", "value": "a"}, turn, {"from": "human", "value": "b"}]},
        "no object",
    ]
    (desk / "mixed.json").write_text(json.dumps([*good, *bad]))
    script = "python workflows/prepare_sft_data.py"
    done = typed(
        f"{script} --input mixed.json --dataset-name mixed --output-dir './work dir'", desk
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 9 rows can be used" in done.stdout
    for reason in (
        "no conversations", "the first turn is not the human's", "a turn says nothing", "turns do not alternate",
        "unknown speaker 'bot'", "the last turn is not answered",
    ):  # fmt: skip
        assert f"left out: {reason}: 1" in done.stdout
    about = json.loads((desk / "work dir/dataset_info.json").read_text())["mixed"]
    assert json.loads(Path(about["file_name"]).read_text()) == good
    assert about["columns"] == {"messages": "conversations", "system": "system"}
    more = typed(
        f"{script} --input data.json --dataset-name second --output-dir './work dir'", desk
    )
    assert more.returncode == 0
    assert list(json.loads((desk / "work dir/dataset_info.json").read_text())) == [
        "mixed",
        "second",
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--input gone.json", 2),
        ("--input none.json", 3),
        ("--input data.json --dataset-name ../x", 2),
        ("", 2),
    ],
)
def test_preparing_ends_with_its_codes(desk: Path, words: str, code: int) -> None:
    (desk / "none.json").write_text('[{"conversations": []}]')
    done = typed(f"python workflows/prepare_sft_data.py {words}", desk)
    assert done.returncode == code, done.stderr


def test_long_rows_are_told_by_the_cut_in_force(desk: Path) -> None:
    done = typed(
        "python workflows/prepare_sft_data.py --input data.json --output-dir w --cutoff-len 5", desk
    )
    assert "6 rows have more than 5 tokens" in done.stdout


def test_what_ships_is_what_the_document_names() -> None:
    names = {path.name for path in WORKFLOWS.iterdir()}
    assert {"run_sft.sh", "prepare_sft_data.py", "process_data_pipeline.sh"} <= names
    assert {"sft_config.yaml", "ds_zero2.json", "ds_zero3.json"} <= names
