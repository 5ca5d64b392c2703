"""Five sources of settings over each other, where each value came from, and every complaint in our words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.config.fields import nearest_name, nearest_variable, sections, settings
from hone.config.layers import NOT_SETTINGS, idle_settings, resolve
from hone.errors import ConfigError


def refused(**sources: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        resolve(**sources)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        "train:\n  epochs: 1\n  batch_size: 1\n  learning_rate: 1\n  seed: 1\n"
        "data:\n  columns: {user: question}\nmodel:\ncompute: {pack: off}\n"
    )
    return path


def test_later_sources_win_and_are_named(file: Path) -> None:
    resolved = resolve(
        file=file,
        environment={"HONE_TRAIN_BATCH_SIZE": "2", "HONE_TRAIN_LEARNING_RATE": "2", "PATH": "/bin"},
        overrides=["train.learning_rate=3", "train.seed=3", "data.columns.assistant=answer"],
        flags={"train.seed": "4", "model.name": None},
    )
    train, said = resolved.config.train, resolved.origins
    assert (train.epochs, train.batch_size, train.learning_rate, train.seed) == (1.0, 2, 3.0, 4)
    assert said["train.epochs"] == f"{file}:2"
    assert said["train.batch_size"] == "environment HONE_TRAIN_BATCH_SIZE"
    assert said["train.learning_rate"] == said["train.seed"] == "command line"
    assert said["train.schedule"] == said["model.name"] == "default"
    assert resolved.config.data.columns == {"user": "question", "assistant": "answer"}
    assert said["data.columns"] == f"{file}:7"
    assert said["data.columns.assistant"] == "command line"
    assert resolved.config.compute.pack is False
    assert set(settings()) <= set(said)


def test_a_whole_mapping_replaces_what_was_said_of_its_entries() -> None:
    overrides = ["data.columns.user=a", "data.columns={assistant: b}"]
    resolved = resolve(overrides=overrides)
    assert resolved.config.data.columns == {"assistant": "b"}
    assert "data.columns.user" not in resolved.origins


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", ".0001", "'1e-4'", " 1e-4 "])
def test_1e_4_is_a_number_everywhere(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"train:\n  learning_rate: {text}\n")
    for resolved in (
        resolve(file=path),
        resolve(environment={"HONE_TRAIN_LEARNING_RATE": text}),
        resolve(overrides=[f"train.learning_rate={text}"]),
        resolve(flags={"train.learning_rate": text}),
        resolve(overrides=[f"train={{learning_rate: {text}}}"]),
    ):
        assert resolved.config.train.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("2024-01-01", "2024-01-01"), ("001", "001"), ("true", "true"), ("a: b # c", "a: b # c"),
        ("'null'", "null"), ('"null"', "null"), ("[x].jsonl", "[x].jsonl"), (" spaced ", " spaced "),
        ("'it", "'it"), ("{a}", "{a}"), ("naïve.jsonl", "naïve.jsonl"), ("k=v", "k=v"),
    ],
)  # fmt: skip
def test_text_settings_keep_what_was_typed(word: str, value: str) -> None:
    assert resolve(overrides=[f"data.path={word}"]).config.data.path == value
    assert resolve(environment={"HONE_DATA_TEMPLATE": word}).config.data.template == value


def test_lists_mappings_and_sections_from_a_word() -> None:
    lora = resolve(overrides=["tuning.lora.target_modules=[q_proj, 001]"]).config.tuning.lora
    assert lora.target_modules == ["q_proj", "001"]
    lora = resolve(overrides=[r"tuning.lora.target_modules=.*\.(q|v)_proj"]).config.tuning.lora
    assert lora.target_modules == r".*\.(q|v)_proj"
    kwargs = "data.template_kwargs={enable_thinking: false, day: 2024-01-01, t: 1e-1, s: '1'}"
    assert resolve(overrides=[kwargs]).config.data.template_kwargs == {
        "enable_thinking": False, "day": "2024-01-01", "t": 0.1, "s": "1",
    }  # fmt: skip
    assert resolve(overrides=["train.betas=[0, 0.5]"]).config.train.betas == (0.0, 0.5)
    tuned = resolve(overrides=["tuning={method: full, lora: {r: 4}}"]).config.tuning
    assert (tuned.method, tuned.lora.r) == ("full", 4)


def test_null_unsets_what_can_be_unset() -> None:
    resolved = resolve(
        environment={"HONE_TRAIN_MAX_STEPS": "7", "HONE_DATA_TEMPLATE": "chatml"},
        overrides=["train.max_steps=null", "data.template="],
    )
    assert resolved.config.train.max_steps is None
    assert resolved.config.data.template is None


@pytest.mark.parametrize(
    ("word", "what", "remedy"),
    [
        ("train.lr=1", "'train.lr'", "did you mean 'train.learning_rate'?"),
        ("learning_rate=1", "'learning_rate'", "did you mean 'train.learning_rate'?"),
        ("train.bach_size=1", "'train.bach_size'", "did you mean 'train.batch_size'?"),
        ("trainn.epochs=1", "'trainn.epochs'", "did you mean 'train.epochs'?"),
        ("tuning.lora.rank=1", "'tuning.lora.rank'", "did you mean 'tuning.lora.r'?"),
        ("tuning.r=1", "'tuning.r'", "did you mean 'tuning.lora.r'?"),
        ("compute.tensor_parallel_size=2", "tensor_parallel_size", "compute.strategy=fsdp"),
        ("compute.context_parallel=2", "context_parallel", "compute.gradient_checkpointing=true"),
        ("pp_size=2", "'pp_size'", "shares a step among ranks by rows"),
        ("optimiser.zzz=1", "'optimiser.zzz'", "sections: model, tuning, data"),
        ("train.epochs.x=1", "'train.epochs.x'", "train.epochs has no keys"),
        ("data.columns.a.b=1", "'data.columns.a.b'", "sections"),
        ("train.batch_size=0", "train.batch_size: 0", "a whole number, at least 1"),
        ("train.batch_size=-1", "train.batch_size: -1", "at least 1"),
        ("train.batch_size=2.5", "train.batch_size: 2.5", "a whole number"),
        ("train.batch_size=two", "train.batch_size: 'two'", "a whole number"),
        ("train.batch_size=true", "train.batch_size: True", "a whole number"),
        ("train.batch_size=[2]", "train.batch_size: '[2]'", "a whole number"),
        ("train.batch_size=", "train.batch_size: null", "a whole number"),
        ("train.epochs=nan", "train.epochs: 'nan'", "a number, above 0"),
        ("train.epochs=.inf", "train.epochs: inf", "a number, above 0"),
        ("train.epochs=1e999", "train.epochs: inf", "a number, above 0"),
        ("train.learning_rate=0", "train.learning_rate: 0", "above 0, or null (unset)"),
        ("train.betas=[1]", "train.betas: [1]", "a list of 2 numbers, each at least 0, below 1"),
        ("train.betas=[0, 3]", "train.betas: [0, 3]", "a list of 2 numbers"),
        ("train.schedule=cosin", "train.schedule: 'cosin'", "did you mean 'cosine'?"),
        ("train.schedule=x", "train.schedule: 'x'", "'linear' or 'cosine' or 'constant'"),
        ("data.shuffle=maybe", "data.shuffle: 'maybe'", "true or false"),
        ("compute.threads=0", "compute.threads: 0", "at least 1, or 'auto'"),
        ("data.path=null", "data.path: null", 'quote it: "null"'),
        ("data.columns.user=null", "data.columns.user: null", "text"),
        ("data.columns={user: [a]}", "data.columns.user: ['a']", "text"),
        ("data.columns=user", "data.columns: 'user'", "a mapping"),
        ("tuning.lora.target_modules={a: b}", "tuning.lora.target_modules", "text, or a list of texts"),
        ("tuning=lora", "tuning is a section", "e.g. tuning.method"),
        ("train.epochs", "'train.epochs' is no setting", "key=value"),
        ("=3", "'=3' is no setting", "key=value"),
    ],
)  # fmt: skip
def test_refused_in_our_words(word: str, what: str, remedy: str) -> None:
    error = refused(overrides=[word])
    assert what in error.what
    assert remedy in (error.remedy or "")
    assert error.where == "command line"
    assert "pydantic" not in str(error)
    assert "Input should" not in str(error)


def test_everything_wrong_is_said_at_once_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("train:\n  epochs: 0\n  speed: 3\nmodel: tiny\ndata:\n  path: null\n")
    text = str(
        refused(
            file=path,
            environment={"HONE_TRAIN_LR": "1", "HONE_TUNING_LORA_R": "x"},
            overrides=["data.validation_path=a", "data.validation_split=0.1", "compute.pack=3"],
        )
    )
    for part in (
        "7 settings cannot be used",
        "train.epochs: 0", f"{path}:2",
        "'train.speed'", f"{path}:3",
        "model is a section", f"{path}:4",
        "data.path: null", f"{path}:6",
        "'HONE_TRAIN_LR'", "did you mean HONE_TRAIN_LEARNING_RATE?",
        "tuning.lora.r: 'x'", "environment HONE_TUNING_LORA_R",
        "compute.pack: 3",
    ):  # fmt: skip
        assert part in text


def test_rules_that_cross_fields_name_what_was_said() -> None:
    error = refused(
        environment={"HONE_DATA_VALIDATION_PATH": "v"}, overrides=["data.validation_split=0.1"]
    )
    assert "exclude each other" in error.what
    assert "data.validation_path from environment HONE_DATA_VALIDATION_PATH" in (error.where or "")
    assert "data.validation_split from command line" in (error.where or "")
    for key in ("eval_steps", "early_stop"):
        error = refused(overrides=[f"train.{key}=3"])
        assert f"train.{key} needs held-out rows" in error.what


def test_ranks_are_described_in_one_way() -> None:
    for words, told in {
        "strategy: fsdp, deepspeed: zero2": "exclude each other",
        "nnodes: 2": "compute.rdzv_endpoint",
        "nnodes: 2, rdzv_endpoint: here": "HOST:PORT",
        "nnodes: 2, rdzv_endpoint: 'here:99999'": "HOST:PORT",
        "nnodes: 2, rdzv_endpoint: 'here:1', node_rank: 2": "from 0 to 1",
        "nnodes: 2, rdzv_endpoint: 'here:1', launcher: ray": "Ray places ranks itself",
    }.items():
        assert told in str(refused(overrides=[f"compute={{{words}}}"])), words


def test_the_value_of_an_unknown_name_is_not_repeated() -> None:
    assert "hf_secret" not in str(refused(overrides=["HF_TOKEN=hf_secret"]))
    assert "hf_secret" not in str(refused(environment={"HONE_HF_TOKEN": "hf_secret"}))


def test_text_that_no_file_can_hold_is_refused() -> None:
    error = refused(overrides=["data.path=\udcff.jsonl"])
    assert "data.path is not UTF-8 text" in error.what
    assert error.where == "command line"


def test_names_of_the_environment_are_one_to_one() -> None:
    variables = [setting.environment for setting in settings().values()]
    assert len(set(variables)) == len(variables)
    assert "HONE_TUNING_LORA_R" in variables
    assert not NOT_SETTINGS & set(variables)
    for name in NOT_SETTINGS:
        resolve(environment={name: "anything"})


def test_nearest_names_are_ones_that_exist() -> None:
    for name in ("lr", "output", "train.output", "tuning.lora.rank", "steps", "batch", "model"):
        near = nearest_name(name)
        assert near in settings() or near in sections()
    assert nearest_name("qqqqqq") is None
    assert nearest_variable("HONE_TRAIN_LR") == "HONE_TRAIN_LEARNING_RATE"
    assert nearest_variable("HONE_LORA_R") == "HONE_TUNING_LORA_R"
    assert nearest_variable("HONE_QQQQ") is None


def test_settings_without_effect_are_named() -> None:
    overrides = ["tuning.method=full", "tuning.lora.r=8", "train.max_steps=5", "train.epochs=1"]
    idle = idle_settings(resolve(overrides=overrides))
    assert [sentence.split()[0] for sentence in idle] == ["tuning.lora.r", "train.epochs"]
    assert idle_settings(resolve(overrides=["tuning.lora.r=8", "train.epochs=1"])) == []


@pytest.mark.parametrize(
    ("overrides", "idle"),
    [
        (["train.betas=[0.9, 0.99]", "train.optimizer=adafactor"], "train.betas has no effect"),
        (["train.betas=[0.9, 0.99]", "train.optimizer=muon"], None),
        (["train.warmup_ratio=0.1", "train.warmup_steps=3"], "train.warmup_ratio has no effect"),
        (["train.decay_ratio=0.1"], "train.decay_ratio has no effect: train.schedule is 'cosine'"),
        (["train.decay_shape=linear", "train.schedule=wsd"], None),
        (
            ["train.min_learning_rate_ratio=0.1", "train.schedule=constant"],
            "train.min_learning_rate_ratio has no effect: train.schedule is 'constant'",
        ),
        (["train.min_learning_rate_ratio=0.1", "train.schedule=wsd"], None),
        (
            ["compute.share_prefixes=true", "train.neftune_alpha=5"],
            "compute.share_prefixes has no effect: train.neftune_alpha is set",
        ),
        (["compute.share_prefixes=false", "train.neftune_alpha=5"], None),
        (["train.lora_plus_ratio=16", "tuning.method=full"], "train.lora_plus_ratio has no effect"),
        (["train.lora_plus_ratio=16"], None),
    ],
)  # fmt: skip
def test_idle_settings_of_training(overrides: list[str], idle: str | None) -> None:
    found = idle_settings(resolve(overrides=overrides))
    assert len(found) == (idle is not None)
    assert idle is None or found[0].startswith(idle)


def test_a_decay_that_would_reach_into_the_warmup_is_refused() -> None:
    overrides = ["train.schedule=wsd", "train.warmup_ratio=0.5", "train.decay_ratio=0.6"]
    error = refused(overrides=overrides)
    assert "warmup_ratio and decay_ratio" in error.what
    assert "train.decay_ratio from command line" in (error.where or "")
    resolve(overrides=[*overrides, "train.warmup_steps=3"])
    resolve(overrides=overrides[1:])


def test_rate_and_betas_follow_the_optimizer_where_unset() -> None:
    def of(*overrides: str) -> tuple[float, tuple[float, float]]:
        config = resolve(overrides=overrides).config
        return config.learning_rate, config.betas

    assert of() == (2e-4, (0.9, 0.999))
    assert of("train.optimizer=muon", "tuning.method=full") == (2e-5, (0.9, 0.999))
    assert of("train.optimizer=lion") == (pytest.approx(4e-5), (0.9, 0.99))
    both = ("train.optimizer=lion_8bit", "train.learning_rate=1e-3", "train.betas=[0.5, 0.6]")
    assert of(*both) == (1e-3, (0.5, 0.6))


def test_settings_of_trackers_that_nobody_hears_are_reported() -> None:
    said = ["output.trackers=wandb", "output.track.entity=me", "output.track.uri=http://host:1"]
    resolved = resolve(overrides=[*said, "train.sample_tokens=9"])
    assert resolved.config.output.trackers == ["wandb"], "a lone name is a list of one"
    assert idle_settings(resolved) == [
        "train.sample_tokens has no effect: train.sample_steps is unset",
        "output.track.uri has no effect: output.trackers names none of mlflow",
    ]


@pytest.mark.parametrize(
    "uri", ["http://me:hunter2@host", "postgresql://me:hunter2@db/x", "http://host/?token=hunter2"]
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(uri: str) -> None:
    error = refused(overrides=[f"output.track.uri={uri}"])
    assert "MLFLOW_TRACKING_PASSWORD" in str(error)
    assert "hunter2" not in str(error)


def test_samples_of_held_out_rows_need_some() -> None:
    assert "train.sample_prompts is 'held-out'" in refused(overrides=["train.sample_steps=5"]).what
    resolve(overrides=["train.sample_steps=5", "data.validation_split=0.1"])
    resolve(overrides=["train.sample_steps=5", "train.sample_prompts=[hello]"])


def test_an_unknown_tracker_is_told_what_there_is() -> None:
    assert settings()["output.trackers"].wanted == "a list of tensorboard, wandb, trackio, mlflow"
    error = refused(overrides=["output.trackers=[tensorbord]"])
    assert "tensorboard, wandb" in (error.remedy or "")
