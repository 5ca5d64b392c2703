"""Samples while training: what the model writes at chosen steps, after the same prompts each time.

It is a callback of the loop, and changes nothing that the loop computes.
"""

from __future__ import annotations

from typing import Final

import torch

from hone.config.sections import Config
from hone.data.render import Renderer
from hone.engine.budget import is_out_of_memory
from hone.engine.callbacks import Callback, Metrics, Training
from hone.engine.memory import free_caches
from hone.infer.completer import Reply, Sampling
from hone.infer.local import LocalCompleter
from hone.infer.stops import stop_ids
from hone.infer.visit import visit
from hone.models import facts
from hone.models.source import read_config
from hone.recipes.build import Built
from hone.recipes.prompts import read_prompts
from hone.recipes.source import Source
from hone.runs.events import Say

_SHOWN_PROMPT: Final = 2000  # characters of a prompt that an event keeps, its end


class Sampler(Callback):
    """Says a `sample` event before the first step, every `train.sample_steps` steps and after the last."""

    def __init__(self, built: Built, source: Source, config: Config, say: Say) -> None:
        """Raises ConfigError and DataError for prompts that cannot be asked."""
        renderer = Renderer(source.tokenizer, source.template)
        self._limit = facts.longest_row(read_config(source.base))
        self._prompts = read_prompts(config, source, renderer, limit=self._limit)
        self._every = config.train.sample_steps or 0
        self._sampling = Sampling(
            max_tokens=config.train.sample_tokens,
            temperature=config.train.sample_temperature,
            seed=config.train.seed,
        )
        self._built = built
        self._say = say
        self._step = -1
        self._given_up = False
        self._stops = stop_ids(renderer, source.base)
        self._renderer = renderer

    def on_train_begin(self, run: Training) -> None:
        """What the model says before it learns anything."""
        if run.step == 0:
            self._sample(0)

    def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
        """Every so many steps."""
        del run, metrics
        if step % self._every == 0:
            self._sample(step)

    def on_train_end(self, run: Training, metrics: Metrics) -> None:
        """What it says at the end, where that was not asked just now."""
        del metrics
        if self._step != run.step:
            self._sample(run.step)

    def _sample(self, step: int) -> None:
        self._step = step
        if self._given_up:
            return
        why = "for lack of memory"
        try:
            replies = self._replies()
        except Exception as error:  # noqa: BLE001 - an aid: no fault of it is worth a run
            replies = None
            if not is_out_of_memory(error):
                self._given_up = True
                why = f"here and later ({type(error).__name__}: {str(error).strip()[:200]})"
        if replies is None:  # not in the handler: the error holds the frames, and they hold memory
            free_caches()
            message = f"step {step}: no samples, {why}; training goes on"
            self._say("notice", code="no-samples", message=message)
            return
        samples = [
            {
                "name": prompt.name,
                "prompt": _end_of(prompt.text),
                "reply": reply.text,
                "wanted": prompt.wanted,
                "finish": reply.finish,
            }
            for prompt, reply in zip(self._prompts, replies, strict=True)
        ]
        self._say("sample", step=step, samples=samples)

    def _replies(self) -> list[Reply]:
        built = self._built
        device, autocast = built.loss.head.device, built.loss.autocast
        with (
            visit(built.model),
            torch.autocast(device.type, autocast, enabled=autocast is not None),
        ):
            completer = LocalCompleter(
                built.model,
                self._renderer,
                stop_ids=self._stops,
                limit=self._limit,
                batches=built.alone_because is None,
            )
            ids = [prompt.ids for prompt in self._prompts]
            return completer.continuations(ids, sampling=self._sampling)


def _end_of(text: str) -> str:
    return text if len(text) <= _SHOWN_PROMPT else "…" + text[-_SHOWN_PROMPT:]
