"""The six sections of the configuration: what the user wants, each field with its unit. No torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from hone.config.base import Section
from hone.config.compute import ComputeSection
from hone.config.kinds import (
    Count,
    NewText,
    Number,
    Positive,
    Share,
    Whole,
    list_of_one,
    number_from_text,
    whole_from_text,
)


class ModelSection(Section):
    """Which weights to start from."""

    name: str = ""
    """Base model: a folder, or a hub id such as `Qwen/Qwen3-0.6B`. A folder with only a tokenizer is enough for preview."""
    revision: str | None = None
    """Branch, tag or commit of a hub model. A token for gated models is read from `HF_TOKEN`."""
    loader: Literal["transformers", "unsloth"] = "transformers"
    """Who loads the weights. `unsloth` puts its own kernels into them, where it is installed with a GPU."""
    adapter: str | None = None
    """An existing LoRA adapter to train further: a folder, or a hub id. Its own settings are in force, not `tuning.lora`. Without `model.name` its own base is taken."""
    new_tokens: list[NewText] = Field(default_factory=list[str])
    """Texts that become one token each, matched wherever they stand in a text. Their embeddings are trained. Those that the tokenizer knows already are left as they are."""
    new_special_tokens: list[NewText] = Field(default_factory=list[str])
    """The same for control tokens: only the chat template can write them, a message cannot."""
    new_token_init: Literal["pieces", "mean"] = "pieces"  # noqa: S105 - a place to begin
    """Where a new token's embedding begins: at the mean over the tokens that spelled it so far (`pieces`), or over all tokens (`mean`)."""

    @property
    def additions(self) -> list[tuple[str, bool]]:
        """Every new token, and whether it is a control token."""
        ordinary = [(text, False) for text in self.new_tokens]
        return [*ordinary, *((text, True) for text in self.new_special_tokens)]

    @model_validator(mode="after")
    def _each_token_once(self) -> Self:
        texts = [*self.new_tokens, *self.new_special_tokens]
        twice = sorted({text for text in texts if texts.count(text) > 1})
        if twice:
            raise ValueError(
                f"new_tokens and new_special_tokens name {twice[0]!r} twice; say it once"
            )
        if self.adapter and texts:
            raise ValueError(
                "adapter and new_tokens (or new_special_tokens) exclude each other: an adapter has the "
                "tokens that it was trained with; add them where it begins, or merge it into its base first"
            )
        return self


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
    """Which layers get an adapter: `all-linear`, a list of module names, or one regular expression over whole names."""
    layers: list[Whole] | None = None
    """Only these decoder layers, by index from 0; a negative one counts from the last. Unset: all."""
    rslora: bool = False
    """Rank-stabilised scaling (Kalajdzievski, 2023): the update is scaled by alpha / sqrt(r)."""
    dora: bool = False
    """Weight-decomposed adaptation (DoRA; Liu et al., 2024): a trained magnitude per output beside the low-rank direction."""
    init: Literal["default", "gaussian", "orthogonal", "olora", "pissa", "loftq"] = "default"
    """How the adapter begins. `default`: A by Kaiming, B zero. `pissa`: the base's main singular vectors (Meng et al., 2024). `olora`: its QR factors (Buyukakyuz, 2024). `loftq`: what 4-bit or 8-bit rounding took from the base (Li et al., 2023, one round); needs `qlora`."""
    pissa_niter: Annotated[int, Field(ge=0, le=1000), BeforeValidator(whole_from_text)] | None = (
        None
    )
    """Subspace iterations of a randomised SVD for `init: pissa`: quicker, near the same. Unset: the exact SVD."""
    modules_to_save: list[str] = Field(default_factory=list[str])
    """Modules trained whole beside the adapters and saved with them: `embeddings`, `head`, or module names."""


class QuantizationSection(Section):
    """How a `qlora` run holds the frozen linear layers of its base (bitsandbytes)."""

    bits: Literal[4, 8] = 4
    """Bits of a weight. 8: rows of int8 with a scale each (LLM.int8's weights); activations stay as they are."""
    quant_type: Literal["nf4", "fp4"] = "nf4"
    """The sixteen values of a 4-bit weight: `nf4` fits normally distributed weights (Dettmers et al., 2023)."""
    double_quant: bool = True
    """Whether the scales of 4-bit blocks are quantised in their turn: 0.37 bits a weight less."""


class FreezeSection(Section):
    """Which weights a `freeze` run trains; all others stay as they are."""

    trainable_layers: Whole = Field(default=2, ge=-1000, le=1000)
    """Number of decoder layers that train: the last ones, or with a minus sign the first ones. 0: none."""
    trainable_modules: str | list[str] = "all"
    """Which modules of these layers train: `all`, a list of module names, or one regular expression over whole names."""
    extra_modules: list[str] = Field(default_factory=list[str])
    """Modules outside these layers that train too: `embeddings`, `head`, or module names such as `model.norm`."""


class TuningSection(Section):
    """How the weights change."""

    method: Literal["lora", "qlora", "freeze", "full"] = "lora"
    """`lora` trains small adapters beside frozen weights; `qlora` the same beside a base held in 4 or 8 bits; `freeze` trains some layers whole; `full` trains every weight."""
    lora: LoraSection = LoraSection()
    """Settings of the adapters; used when `method` is `lora` or `qlora`."""
    quantization: QuantizationSection = QuantizationSection()
    """How the base is held; used when `method` is `qlora`."""
    freeze: FreezeSection = FreezeSection()
    """What trains; used when `method` is `freeze`."""

    @property
    def is_adapter(self) -> bool:
        """Whether what is trained is an adapter, saved apart from its base."""
        return self.method in ("lora", "qlora")

    @model_validator(mode="after")
    def _settings_that_fit(self) -> Self:
        quantized = self.method == "qlora"
        if self.is_adapter and self.lora.init == "loftq" and not quantized:
            raise ValueError(
                "lora.init=loftq makes good what quantisation takes from the base, and this base is not "
                "quantised; set method=qlora or lora.init=pissa"
            )
        if quantized and self.lora.init in ("pissa", "olora", "orthogonal"):
            raise ValueError(
                f"lora.init={self.lora.init} is not offered beside a quantised base, whose weights are held as "
                "small integers; set lora.init=loftq, or method=lora"
            )
        if self.is_adapter and self.lora.init == "orthogonal" and self.lora.r % 2:
            raise ValueError("lora.init=orthogonal needs an even lora.r")
        if self.is_adapter and self.lora.layers is not None and not self.lora.layers:
            raise ValueError("lora.layers is empty; name a layer, or unset it for all layers")
        return self


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
    max_rows: Count | None = None
    """Most rows taken, from the beginning. Unset: as `data.max_rows` says."""


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
    input_heading: str | None = None
    """What stands above the `input` of an `alpaca` row, a blank line after its instruction, e.g. `### Input:`. Unset: the input follows on the next line."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Names in `sharegpt` turns: the keys of `role` (`from`) and `content` (`value`), and who is `user` (`human`), `assistant` (`gpt`), `system`, `tool` (`observation`) and `function` (`function_call`). LLaMA-Factory's names (`user_tag`) are understood."""
    template: str | None = None
    """Chat template instead of the model's own: `chatml`, `qwen`, `qwen3`, `qwen3_nothink`, `llama2`, `llama3`, `alpaca`, `gemma`, `human`, `mistral`, `phi`, `plain`, or the path of a Jinja file."""
    template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Extra variables for the chat template, e.g. `{enable_thinking: false}`."""
    train_on: Literal["all", "last", "everything"] = "all"
    """Which assistant turns are trained: `all`, or only the `last` of each row. `everything` trains every token, what users, systems and tools say too."""
    train_separators: bool = False
    """Whether what the template writes after the end of a trained turn (the line end of ChatML) is trained too, as LLaMA-Factory does. No reply ever has it."""
    max_length: Annotated[int, Field(ge=2), BeforeValidator(whole_from_text)] | None = None
    """Longest row, in tokens. Unset: the model's own limit."""
    too_long: Literal["refuse", "drop", "oldest", "cut", "share"] = "refuse"
    """What happens to a longer row: `refuse` stops before anything loads, `drop` leaves it out, `oldest` leaves out its oldest turns, `cut` keeps its first `max_length` tokens, `share` divides the room between questions and answers as LLaMA-Factory does. What is dropped or lost is counted."""
    bad_rows: Literal["refuse", "drop"] = "refuse"
    """What happens to a row that cannot be used (not JSON, another shape, an unknown role): `refuse` stops and names it, `drop` leaves it out and counts it."""
    workers: (
        Annotated[int, Field(ge=0, le=64), BeforeValidator(whole_from_text)] | Literal["auto"]
    ) = "auto"
    """Processes that prepare rows ahead of training. `auto`: one per core for files from 8 MiB on; 0 prepares all rows in the run's own process first."""
    shuffle: bool = True
    """Whether each epoch has an order of its own, drawn from `train.seed`; false keeps the order of the file, and of several sources without weights one after the other."""
    validation_split: Share = 0.0
    """Share of the rows held out for the evaluation loss, 0 to 1. Chosen by content, so equal rows stay on one side."""
    validation_path: str | None = None
    """Held-out rows, instead of a share: named as `path` is; of a folder or hub dataset its split `validation` is taken."""
    chunk_size: Annotated[int, Field(ge=100), BeforeValidator(whole_from_text)] = 4000
    """Longest piece that `hone documents` cuts of a document, in characters."""
    overlap: Annotated[int, Field(ge=0), BeforeValidator(whole_from_text)] = 0
    """How much of a piece's end stands at the beginning of the next, in characters, at most half of `chunk_size`."""
    min_text_length: Annotated[int, Field(ge=1), BeforeValidator(whole_from_text)] = 200
    """Shorter pieces are left out by `hone documents`, in characters."""
    block_size: Annotated[int, Field(ge=16), BeforeValidator(whole_from_text)] | None = None
    """Tokens of a row that `hone documents` writes: pieces one after the other, each with its end, cut every so many tokens. Unset: a piece is a row, which costs nothing, since Packs hold no padding."""

    @model_validator(mode="after")
    def _pieces_that_can_be(self) -> Self:
        if self.overlap * 2 > self.chunk_size:
            raise ValueError("overlap is at most half of chunk_size; lower it, or raise chunk_size")
        if self.min_text_length > self.chunk_size:
            raise ValueError(
                "min_text_length is at most chunk_size: no piece would be long enough; lower it, or raise chunk_size"
            )
        return self

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
    """Peak learning rate. Unset: 2e-4 for lora and qlora, 2e-5 for freeze and full, a fifth of that with Lion."""
    lora_plus_ratio: Annotated[float, Field(ge=1), BeforeValidator(number_from_text)] = 1.0
    """How many times the learning rate the B matrices of adapters move at (LoRA+, Hayou et al., 2024; 16 is usual). 1: as the others."""
    schedule: Literal["linear", "cosine", "constant", "wsd"] = "cosine"
    """Course of the learning rate after the warmup, down to its floor. `constant` stays at the peak; `wsd` (warmup, stable, decay) stays there until its last steps."""
    warmup_ratio: Number = Field(default=0.03, ge=0, le=1)
    """Share of all steps in which the learning rate rises from 0."""
    warmup_steps: Annotated[int, Field(ge=0), BeforeValidator(whole_from_text)] | None = None
    """Steps in which the learning rate rises from 0, overriding `warmup_ratio`."""
    min_learning_rate_ratio: Number = Field(default=0.0, ge=0, le=1)
    """Floor of a decaying learning rate, as a share of its peak."""
    decay_ratio: Annotated[float, Field(gt=0, le=1), BeforeValidator(number_from_text)] = 0.2
    """Share of all steps, at the end, in which `wsd` decays."""
    decay_shape: Literal["linear", "cosine", "sqrt"] = "sqrt"
    """Shape of the decay of `wsd`; `sqrt` is 1 - sqrt of the share done."""
    optimizer: Literal[
        "adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor", "lion", "lion_8bit", "muon"
    ] = "adamw"  # fmt: skip
    """What moves the weights. `_8bit` keeps moments in 8 bits (embeddings' in 32), `paged_` lets them leave a full GPU: both need `pip install 'hone[quantize]'`. `muon` orthogonalises the updates of 2-D weights, scaled to AdamW's size, and AdamW moves embeddings, head and the rest."""
    weight_decay: Number = Field(default=0.0, ge=0)
    """Decoupled weight decay; biases and norms are exempt."""
    betas: tuple[Share, Share] | None = None
    """Decay of the first and second moment of AdamW, or of Lion's two averages, each 0 to 1. Unset: 0.9 and 0.999, for Lion 0.9 and 0.99."""
    loss: Literal["nll", "dft"] = "nll"
    """What is minimised: the negative log-likelihood, or `dft` (dynamic fine-tuning, Wu et al., 2025), in which each token's loss is weighted by its own probability. The held-out loss is the plain negative log-likelihood always."""
    label_smoothing: Share = 0.0
    """Share of each target's probability that is spread evenly over the vocabulary (Szegedy et al., 2016), 0 to 1."""
    z_loss: Number = Field(default=0.0, ge=0)
    """Coefficient of the squared logarithm of the softmax's normaliser, added to each token's loss (PaLM: 1e-4)."""
    neftune_alpha: Number = Field(default=0.0, ge=0)
    """Scale of the noise added to embeddings (NEFTune, Jain et al., 2023; 5 is usual): uniform within alpha / sqrt(row length x width). It depends on the row's length, so rows share no beginning while training. 0: none."""
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
    best_at_end: bool = False
    """Whether the artifact holds the weights of the best checkpoint by held-out loss, instead of the last step's. Needs held-out rows."""
    early_stop: Count | None = None
    """Stop after this many evaluations without a better held-out loss. Unset: never. Needs held-out rows."""
    sample_steps: Count | None = None
    """Steps between samples of what the model writes; one more before the first step and after the last. Unset: none. They change nothing of the training."""
    sample_prompts: str | list[str] = "held-out"
    """What samples answer: a list of user messages; a file with one on each line (.txt), or of rows, whose last answer is left out; or `held-out`, the first held-out rows."""
    sample_tokens: Count = 128
    """Longest sample, in tokens."""
    sample_temperature: Number = Field(default=0.0, ge=0, le=100)
    """How freely samples are drawn: 0 writes the likeliest token each time, more draws by `seed`."""

    @model_validator(mode="after")
    def _decay_after_warmup(self) -> Self:
        warmup = self.warmup_ratio if self.warmup_steps is None else 0.0
        if self.schedule == "wsd" and warmup + self.decay_ratio > 1:
            raise ValueError(
                "warmup_ratio and decay_ratio are shares of the same steps, together at most 1; lower one"
            )
        return self


Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]


_SECRET_WORD = re.compile(r"password|passwd|token|secret|key", re.IGNORECASE)


class TrackSection(Section):
    """How a run is called where trackers keep it. Keys and passwords are read from the environment only."""

    project: Annotated[str, Field(min_length=1)] = "hone"
    """Project (wandb, trackio) or experiment (mlflow) that the run belongs to."""
    name: str | None = None
    """What the run is called there. Unset: the name of its folder."""
    tags: list[str] = Field(default_factory=list[str])
    """Tags of the run (wandb, mlflow)."""
    entity: str | None = None
    """User or team that owns the project (wandb). Unset: the key's own."""
    uri: str | None = None
    """Server or database, e.g. `http://localhost:5000` or `sqlite:///mlflow.db` (mlflow). Unset: `MLFLOW_TRACKING_URI`, else `mlflow.db` beside the run's folder."""
    folder: str | None = None
    """Where local files go (tensorboard, wandb). Unset: `tracking` in the run's folder."""
    config: dict[str, Any] = Field(default_factory=dict)
    """More settings to show beside the run's own, as you call them (tensorboard, wandb, trackio, mlflow)."""
    log_model: bool = False
    """Whether the model or adapter of a finished run is sent too (wandb)."""

    @model_validator(mode="after")
    def _no_secret(self) -> Self:
        parts = urlsplit(self.uri or "")
        if "@" in parts.netloc or _SECRET_WORD.search(parts.query):
            raise ValueError(
                "uri must hold no user and password: set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or the whole MLFLOW_TRACKING_URI, in the environment"
            )
        return self


class OutputSection(Section):
    """Where the run lives, and who else hears of it."""

    dir: str | None = None
    """Folder of the run. Unset: `runs/<data>-<model>`. The same command resumes in it."""
    trackers: Annotated[list[Tracker], BeforeValidator(list_of_one)] = Field(
        default_factory=list[Tracker]
    )
    """Who is told the run's numbers, e.g. `[tensorboard, wandb]`. They read its events in processes of their own, and no failure of theirs touches the run."""
    track: TrackSection = TrackSection()
    """What trackers call the run, and where they keep it."""


class Config(Section):
    """Everything the user wants of one run."""

    model: ModelSection = ModelSection()
    tuning: TuningSection = TuningSection()
    data: DataSection = DataSection()
    train: TrainSection = TrainSection()
    compute: ComputeSection = ComputeSection()
    output: OutputSection = OutputSection()

    @model_validator(mode="after")
    def _adapter_where_one_is_trained(self) -> Self:
        if self.model.adapter and not self.tuning.is_adapter:
            raise ValueError(
                f"model.adapter is trained further by tuning.method lora or qlora, not {self.tuning.method}"
            )
        return self

    @model_validator(mode="after")
    def _held_out_rows_where_needed(self) -> Self:
        held_out = self.data.validation_path or self.data.validation_split
        for key in ("eval_steps", "early_stop", "best_at_end"):
            if getattr(self.train, key) not in (None, False) and not held_out:
                raise ValueError(
                    f"train.{key} needs held-out rows: set data.validation_split (e.g. 0.05) "
                    "or data.validation_path"
                )
        if self.train.sample_steps and self.train.sample_prompts == "held-out" and not held_out:
            raise ValueError(
                "train.sample_prompts is 'held-out', and there are no held-out rows: name prompts or a file, "
                "or set data.validation_split (e.g. 0.05) or data.validation_path"
            )
        return self

    @property
    def learning_rate(self) -> float:
        """The peak learning rate in force: the user's, or the default of tuning method and optimizer.

        Lion's steps have the size of the rate itself: a third to a tenth of AdamW's suits it (Chen et al. 2023).
        """
        if self.train.learning_rate is not None:
            return self.train.learning_rate
        rate = 2e-4 if self.tuning.is_adapter else 2e-5
        return rate / 5 if self._is_lion else rate

    @property
    def betas(self) -> tuple[float, float]:
        """The decays of the moments in force: the user's, or the default of the optimizer."""
        if self.train.betas is not None:
            return self.train.betas
        return (0.9, 0.99) if self._is_lion else (0.9, 0.999)

    @property
    def _is_lion(self) -> bool:
        return self.train.optimizer in ("lion", "lion_8bit")
