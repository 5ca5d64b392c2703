"""The six sections of the configuration: what the user wants, each field with its unit. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hone.config.base import Section


def _number_from_text(value: object) -> object:
    """YAML 1.1 reads `1e-4` (no dot) as text; here it is a number everywhere."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not a truth value")
    return value


def _whole_from_text(value: object) -> object:
    if isinstance(value, str):
        value = _number_from_text(value)
    if isinstance(value, bool):
        raise ValueError("a whole number is wanted, not a truth value")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Number = Annotated[float, BeforeValidator(_number_from_text)]
Whole = Annotated[int, BeforeValidator(_whole_from_text)]
Share = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_number_from_text)]
Positive = Annotated[float, Field(gt=0), BeforeValidator(_number_from_text)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole_from_text)]


class ModelSection(Section):
    """Which weights to start from."""

    name: str = ""
    """Base model: a folder, or a hub id such as `Qwen/Qwen3-0.6B`. A folder with only a tokenizer is enough for preview."""
    revision: str | None = None
    """Branch, tag or commit of a hub model. A token for gated models is read from `HF_TOKEN`."""


Shape = Literal[
    "auto",
    "messages",
    "prompt-completion",
    "turns",
    "alpaca",
    "sharegpt",
    "conversations",
    "log",
    "question-answer",
    "query-response",
    "instruction-response",
    "pairs",
    "tokens",
    "text",
    "completion",
]


class LoraSection(Section):
    """Low-rank adapters (Hu et al., 2021)."""

    r: Whole = Field(default=16, ge=1, le=1024)
    """Rank of the update, in columns. Higher learns more and costs memory."""
    alpha: Positive = 32.0
    """The update is scaled by alpha / r."""
    dropout: Share = 0.0
    """Share of the adapter's inputs set to zero in training, 0 to 1."""
    target_modules: str | list[str] = "all-linear"
    """Which layers get an adapter: `all-linear`, a list of module names, or one regular expression."""


class TuningSection(Section):
    """How the weights change."""

    method: Literal["lora", "full"] = "lora"
    """`lora` trains small adapters beside frozen weights; `full` trains every weight."""
    lora: LoraSection = LoraSection()
    """Settings of the adapters; used when `method` is `lora`."""


class SourceSection(Section):
    """One of several sources of rows; the keys mean what they mean in `data`."""

    path: Annotated[str, Field(min_length=1)]
    """A file of rows, a folder of them, or a dataset's hub id."""
    weight: Positive | None = None
    """Share of an epoch's rows, in proportion to the other weights. Unset in all: every row once."""
    name: str | None = None
    """What reports call the source. Unset: its path, and its split where it has one."""
    format: Shape = "auto"
    """Shape of its rows."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column name to its own."""
    tags: dict[str, str] = Field(default_factory=dict)
    """The names that its `sharegpt` rows use."""
    split: str | None = None
    """Which split of a folder or hub dataset. Unset: `train`."""
    subset: str | None = None
    """Which subset (configuration) of a hub dataset."""
    revision: str | None = None
    """Branch, tag or commit of a hub dataset."""


class DataSection(Section):
    """Which rows, and what of them is trained."""

    path: str = ""
    """Rows: a JSONL, JSON, CSV, TSV, Parquet or Arrow file, a folder of such files, a folder saved by `datasets`, or a hub id such as `openai/gsm8k`."""
    sources: list[SourceSection] = Field(default_factory=list[SourceSection])
    """Several sources instead of `path`, mixed by weight, e.g. `[{path: a.jsonl, weight: 0.9}, {path: b.csv, weight: 0.1}]`."""
    split: str | None = None
    """Which split of a folder or hub dataset. Unset: `train`."""
    subset: str | None = None
    """Which subset (configuration) of a hub dataset. Unset: its default."""
    revision: str | None = None
    """Branch, tag or commit of a hub dataset. A token for gated datasets is read from `HF_TOKEN`."""
    streaming: bool = False
    """Read a hub dataset over the network as it is imported, without keeping its files. With `max_rows` only the beginning is fetched."""
    max_rows: Count | None = None
    """Most rows taken, from the beginning (of each source, where there are several). Unset: all."""
    format: Shape = "auto"
    """Shape of a row. `auto` recognises it by its keys and says so. `turns` is system/user/assistant columns."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column name to yours, e.g. `{user: question, assistant: answer}`."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Names in `sharegpt` turns: the keys of `role` (`from`) and `content` (`value`), and who is `user` (`human`), `assistant` (`gpt`), `system`, `tool` (`observation`) and `function` (`function_call`). LLaMA-Factory's names (`user_tag`) are understood."""
    template: str | None = None
    """Chat template instead of the model's own: `chatml`, `qwen`, `qwen3`, `qwen3_nothink`, `llama2`, `llama3`, `alpaca`, `gemma`, `mistral`, `phi`, `plain`, or the path of a Jinja file."""
    template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Extra variables for the chat template, e.g. `{enable_thinking: false}`."""
    train_on: Literal["all", "last"] = "all"
    """Which assistant turns are trained: `all`, or only the `last` of each row."""
    max_length: Annotated[int, Field(ge=2), BeforeValidator(_whole_from_text)] | None = None
    """Longest row, in tokens. Unset: the model's own limit."""
    too_long: Literal["refuse", "drop", "oldest", "cut", "share"] = "refuse"
    """What happens to a longer row: `refuse` stops before anything loads, `drop` leaves it out, `oldest` leaves out its oldest turns, `cut` keeps its first `max_length` tokens, `share` divides the room between questions and answers as LLaMA-Factory does. What is dropped or lost is counted."""
    bad_rows: Literal["refuse", "drop"] = "refuse"
    """What happens to a row that cannot be used (not JSON, another shape, an unknown role): `refuse` stops and names it, `drop` leaves it out and counts it."""
    workers: (
        Annotated[int, Field(ge=0, le=64), BeforeValidator(_whole_from_text)] | Literal["auto"]
    ) = "auto"
    """Processes that prepare rows ahead of training. `auto`: one per core for files from 8 MiB on; 0 prepares all rows in the run's own process first."""
    shuffle: bool = True
    """Whether each epoch has an order of its own, drawn from `train.seed`; false keeps the order of the file."""
    validation_split: Share = 0.0
    """Share of the rows held out for the evaluation loss, 0 to 1. Chosen by content, so equal rows stay on one side."""
    validation_path: str | None = None
    """Held-out rows, instead of a share: named as `path` is; of a folder or hub dataset its split `validation` is taken."""

    @model_validator(mode="after")
    def _one_validation(self) -> Self:
        if self.validation_path and self.validation_split:
            raise ValueError(
                "validation_path and validation_split exclude each other; remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _one_place_of_rows(self) -> Self:
        if not self.sources:
            return self
        for key in ("path", "split", "subset", "revision", "format", "columns"):
            if getattr(self, key) not in (None, "", "auto", {}):
                raise ValueError(
                    f"{key} and sources exclude each other; say {key} in an entry of sources"
                )
        if len({source.weight is None for source in self.sources}) > 1:
            raise ValueError("sources need a weight each, or none at all")
        return self


class TrainSection(Section):
    """The optimisation."""

    epochs: Positive = 3.0
    """Passes over the rows; a fraction stops within a pass. `max_steps` overrides it."""
    max_steps: Count | None = None
    """Optimizer steps in all, overriding `epochs`."""
    batch_size: Count = 16
    """Rows per optimizer step, on all devices together. Never changed by memory: that is `compute.micro_batch_tokens`."""
    learning_rate: Positive | None = None
    """Peak learning rate. Unset: 2e-4 for lora, 2e-5 for full."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """Course of the learning rate after the warmup, down to 0 (`constant` stays)."""
    warmup_ratio: Number = Field(default=0.03, ge=0, le=1)
    """Share of all steps in which the learning rate rises from 0."""
    weight_decay: Number = Field(default=0.0, ge=0)
    """Decoupled weight decay of AdamW; biases and norms are exempt."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """AdamW's decay of the first and second moment, each 0 to 1."""
    max_grad_norm: Number = Field(default=1.0, ge=0)
    """Global gradient norm above which the gradient is scaled down; 0 switches clipping off."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the step. `auto` measures both on this machine and says what it took. Trained weights and gradients are float32 either way."""
    seed: Whole = Field(default=0, ge=0, le=2**32 - 1)
    """Names the run's randomness: order, adapter initialisation, dropout."""
    save_steps: Count | None = None
    """Steps between checkpoints. Unset: ten checkpoints over the run, and one at its end."""
    eval_steps: Count | None = None
    """Steps between evaluations on the held-out rows. Unset: at each checkpoint. Needs held-out rows."""
    save_total_limit: Count = 3
    """Checkpoints kept; the best by held-out loss is always among them."""
    early_stop: Count | None = None
    """Stop after this many evaluations without a better held-out loss. Unset: never. Needs held-out rows."""


class ComputeSection(Section):
    """How a step is computed. Nothing here changes what is computed, beyond rounding."""

    micro_batch_tokens: Count | Literal["auto"] = "auto"
    """Most tokens in one Pack (one forward and backward). `auto` takes what fits and is fastest here."""
    share_prefixes: bool = True
    """Whether rows of a step that begin alike share their beginning. False: for comparison."""
    pack: bool = True
    """Whether several rows stand in one Pack. False runs them one at a time: for comparison."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    threads: Count | Literal["auto"] = "auto"
    """CPU threads of the step, of each rank. `auto`: the cores this process may use, shared among the ranks of a machine. Kept for the whole run, since it changes the last bits."""
    nproc: Count | Literal["auto"] = "auto"
    """Ranks (processes that share each step) on this machine. `auto`: one for each visible GPU, one where there is none."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How ranks hold the model. `ddp`: each holds all of it; `fsdp`: each a slice of every weight, gathered while it is needed. `auto`: ddp where that fits, else fsdp."""
    deepspeed: str | None = None
    """ZeRO through DeepSpeed instead of `strategy`: `zero1`, `zero2`, `zero3`, `zero2-offload`, `zero3-offload`, or a DeepSpeed JSON file, whose `auto` values are filled from here."""

    @model_validator(mode="after")
    def _one_strategy(self) -> Self:
        if self.deepspeed and self.strategy != "auto":
            raise ValueError("deepspeed and strategy exclude each other; remove one of them")
        return self


class OutputSection(Section):
    """Where the run lives."""

    dir: str | None = None
    """Folder of the run. Unset: `runs/<data>-<model>`. The same command resumes in it."""


class Config(Section):
    """Everything the user wants of one run."""

    model: ModelSection = ModelSection()
    tuning: TuningSection = TuningSection()
    data: DataSection = DataSection()
    train: TrainSection = TrainSection()
    compute: ComputeSection = ComputeSection()
    output: OutputSection = OutputSection()

    @model_validator(mode="after")
    def _held_out_rows_where_needed(self) -> Self:
        held_out = self.data.validation_path or self.data.validation_split
        for key in ("eval_steps", "early_stop"):
            if getattr(self.train, key) is not None and not held_out:
                raise ValueError(
                    f"train.{key} needs held-out rows: set data.validation_split (e.g. 0.05) "
                    "or data.validation_path"
                )
        return self

    @property
    def learning_rate(self) -> float:
        """The peak learning rate in force: the user's, or the default of the tuning method."""
        if self.train.learning_rate is not None:
            return self.train.learning_rate
        return 2e-4 if self.tuning.method == "lora" else 2e-5
