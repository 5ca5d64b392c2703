"""The quickstart's base model: built once from plain text, kept in the cache. It knows no task.

A small Llama with a byte-level tokenizer of its own. It is trained through the same Packs and the same loss
as every other model; only the optimizer is another one, because a model at its beginning gains from Muon
(Jordan et al., 2024; torch.optim.Muon): 300 steps where AdamW needs more than 800.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Protocol

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from hone.data.byte_tokenizer import new_byte_tokenizer
from hone.data.hold import Hold
from hone.data.layout import Branch, branch, write_pack
from hone.data.tokenizer import TextTokenizer
from hone.engine.loss import PackLoss
from hone.errors import DiskError
from hone.models import attention
from hone.models.load import quiet
from hone.pack import Pack
from hone.recipes.corpus import Part, any_text

NAME: Final = "town-1m"
PADDING: Final = "<|endoftext|>"
TURN_BEGINS: Final = "<|im_start|>"
TURN_ENDS: Final = "<|im_end|>"
_TEMPLATE: Final = (
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}\n"
)
_SAMPLED_TEXTS: Final = 500
_WRITING: Final = ".writing-"
_LONGEST_BUILD_SECONDS: Final = 3600
_VERSION: Final = 1  # raise it when the training below changes

Progress = Callable[[int, int, float], None]  # steps done, steps in all, loss


@dataclass(frozen=True)
class BaseSettings:
    """Sizes of the model and of its training; all of them name the cached model."""

    hidden_size: int = 128
    intermediate_size: int = 384
    num_layers: int = 3
    num_heads: int = 4
    vocab_size: int = 1024
    max_length: int = 512  # tokens
    tokenizer_texts: int = 5000
    steps: int = 600
    texts_per_step: int = 16
    matrix_rate: float = 3e-3  # Muon, for the matrices of the layers
    other_rate: float = 4e-3  # AdamW, for embeddings and norms
    initial_std: float = 0.06  # wider than usual: 128 is narrow
    unforeseen_weight: float = 0.1  # loss weight of what no reader could foretell
    seed: int = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex, 16 digits) of the settings, of a sample of the texts, and of the way of training."""
        random = Random(self.seed)
        sample = [any_text(random) for _ in range(_SAMPLED_TEXTS)]
        told = json.dumps([asdict(self), sample, _TEMPLATE, _VERSION])
        return hashlib.sha256(told.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Base:
    """Where the base model lies, and whether this call built it. `hold` keeps it from being pruned."""

    folder: Path
    built: bool
    seconds: float
    hold: Hold | None = field(default=None, compare=False, repr=False)


class Build(Protocol):
    """What writes a base model; `build_base` is the one."""

    def __call__(
        self, folder: Path, settings: BaseSettings, *, progress: Progress | None = None
    ) -> None:
        """Write every file of the model into the empty `folder`."""
        ...


def base_model(
    cache: Path,
    *,
    settings: BaseSettings | None = None,
    progress: Progress | None = None,
    build: Build | None = None,
) -> Base:
    """The base model from `cache`, built there first where it is absent (a minute of CPU).

    It is written beside and renamed, so that two who build at once leave one whole model. Raises DiskError.
    """
    settings = settings or BaseSettings()
    began = time.perf_counter()
    folder = cache / "base" / f"{NAME}-{settings.fingerprint}"
    if (folder / "config.json").is_file():
        return Base(folder, False, time.perf_counter() - began, Hold(folder))
    try:
        _write_whole(folder, settings, progress, build or build_base)
    except OSError as error:
        raise DiskError(
            f"cannot keep the base model: {error.strerror or error}",
            where=str(folder.parent),
            remedy="free some space, or set HONE_CACHE to a folder that you may write",
        ) from error
    return Base(folder, True, time.perf_counter() - began, Hold(folder))


def _write_whole(
    folder: Path, settings: BaseSettings, progress: Progress | None, build: Build
) -> None:
    """Build beside `folder` and rename; where another finished first, theirs stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _tidy(folder.parent)
    beside = Path(tempfile.mkdtemp(prefix=_WRITING, dir=folder.parent))
    try:
        build(beside, settings, progress=progress)
        beside.chmod(0o755)
        try:
            beside.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _tidy(folder: Path) -> None:
    """Remove what killed builds left; a live one is younger."""
    for path in folder.glob(f"{_WRITING}*"):
        if time.time() - path.stat().st_mtime > _LONGEST_BUILD_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def build_base(folder: Path, settings: BaseSettings, *, progress: Progress | None = None) -> None:
    """Write tokenizer, chat template, weights and configs into the empty `folder`."""
    random = Random(settings.seed)
    told = ("".join(text for text, _ in any_text(random)) for _ in range(settings.tokenizer_texts))
    tokenizer = new_byte_tokenizer(
        folder,
        told,
        vocab_size=settings.vocab_size,
        control_tokens=[PADDING, TURN_BEGINS, TURN_ENDS],
        end_of_text=TURN_ENDS,
        padding=PADDING,
        chat_template=_TEMPLATE,
    )
    model = _new_model(tokenizer, settings)
    _train(model, _packs(tokenizer, random, settings), settings, progress)
    model.set_attn_implementation("sdpa")
    with quiet():
        model.eval().save_pretrained(folder)


def _new_model(tokenizer: TextTokenizer, settings: BaseSettings) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_heads,
        max_position_embeddings=settings.max_length,
        initializer_range=settings.initial_std,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.id_of(TURN_ENDS),
        pad_token_id=tokenizer.id_of(PADDING),
    )
    attention.register()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = LlamaForCausalLM(config)
    model.set_attn_implementation(attention.NAME)
    return model


def _packs(tokenizer: TextTokenizer, random: Random, settings: BaseSettings) -> Iterator[Pack]:
    """One Pack of whole texts for each step."""
    for _ in range(settings.steps):
        texts = [any_text(random) for _ in range(settings.texts_per_step)]
        yield write_pack(_branches(tokenizer, texts, settings), share_prefixes=False)


def _branches(
    tokenizer: TextTokenizer, texts: Sequence[Sequence[Part]], settings: BaseSettings
) -> list[Branch]:
    """The texts in tokens, each with the end of a turn at its end: a base model knows how to stop."""
    encoded = iter(tokenizer.encode_many([part for text in texts for part, _ in text]))
    end = tokenizer.id_of(TURN_ENDS)
    branches: list[Branch | None] = []
    for row, text in enumerate(texts):
        ids: list[int] = []
        weight: list[float] = []
        for _, follows in text:
            part = next(encoded)
            ids += part
            weight += [1.0 if follows else settings.unforeseen_weight] * len(part)
        token_ids = np.array([*ids, end], dtype=np.int32)
        weights = np.array([0.0, *weight[1:], 1.0], dtype=np.float32)
        branches.append(branch(row, token_ids, weights))
    return [one for one in branches if one is not None]


def _train(
    model: PreTrainedModel,
    packs: Iterator[Pack],
    settings: BaseSettings,
    progress: Progress | None,
) -> None:
    loss_of = PackLoss(model)
    embeddings = {id(p) for p in model.get_input_embeddings().parameters()}
    matrices = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embeddings]
    others = [p for p in model.parameters() if p.ndim != 2 or id(p) in embeddings]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (
            torch.optim.Muon(matrices, lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            settings.matrix_rate,
        ),
        (
            torch.optim.AdamW(others, lr=1.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
            settings.other_rate,
        ),
    ]
    for step, pack in enumerate(packs):
        loss = loss_of(pack, 1.0 / float(pack.weight.sum(dtype=np.float64)))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * _rate(step, settings.steps)
            optimizer.step()
            optimizer.zero_grad()
        if progress is not None:
            progress(step + 1, settings.steps, float(loss.detach()))


def _rate(step: int, steps: int) -> float:
    """Share of the peak rate at the 0-based `step`: 20 steps of warmup, a plateau, down from 30% on."""
    warmup = min(1.0, (step + 1) / 20)
    return warmup * (0.05 + 0.95 * min(1.0, (1 - step / steps) / 0.7))
