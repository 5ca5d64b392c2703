"""Replies from a model of transformers in this process. It knows where no model lies, and no run.

Prompts are rendered by the road of training; the tokens are written by `generate` of transformers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final, Literal, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from hone.data.render import Renderer
from hone.errors import ConfigError
from hone.infer.completer import GREEDY, Messages, Reply, Sampling
from hone.infer.text_stream import TextStream, text_of
from hone.models.load import quiet

_BATCH_TOKENS: Final = 16_384  # prompts and replies of one batch, padding included


class LocalCompleter:
    """Answers by `model.generate`.

    `limit` is the most tokens that the model takes, prompt and reply together. `adapter` false leaves a
    PEFT model's adapter out: the base beside it, with one set of weights in memory. `batches` false runs
    prompts one at a time (a recurrent model would read the padding).
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        renderer: Renderer,
        *,
        stop_ids: Sequence[int],
        limit: int | None = None,
        adapter: bool = True,
        batches: bool = True,
    ) -> None:
        self.model = model
        self.renderer = renderer
        self.stop_ids = tuple(stop_ids)
        self.limit = limit
        self.batches = batches
        """Whether several of its rows may stand in one batch."""
        self._adapter = adapter
        # The model's own file may name a temperature or a penalty; only what `Sampling` says is in force.
        _plain(model).generation_config = GenerationConfig()
        model.eval()

    def without_adapter(self) -> LocalCompleter | None:
        """The base model of an adapted one, on the same weights; None where nothing is adapted."""
        if not isinstance(self.model, PeftModel):
            return None
        return LocalCompleter(
            self.model,
            self.renderer,
            stop_ids=self.stop_ids,
            limit=self.limit,
            adapter=False,
            batches=self.batches,
        )

    def reply(
        self,
        messages: Messages,
        *,
        tools: Messages = (),
        sampling: Sampling = GREEDY,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """Answer one conversation.

        Raises TemplateError where the chat template refuses it, ConfigError where it leaves no room.
        """
        prompt = self.renderer.prompt(messages, tools)
        streamer = None if on_text is None else _Streamer(self, prompt, on_text)
        written = self._generate([prompt], sampling, streamer)[0]
        if streamer is not None:
            streamer.finish()
        return self._reply(prompt, written)

    def replies(
        self, conversations: Sequence[Messages], *, sampling: Sampling = GREEDY
    ) -> list[Reply]:
        """Answer many, batched by length; each gets the reply that it would get alone (when greedy)."""
        prompts = [self.renderer.prompt(messages) for messages in conversations]
        return self.continuations(prompts, sampling=sampling)

    def continuations(
        self, prompts: Sequence[Sequence[int]], *, sampling: Sampling = GREEDY
    ) -> list[Reply]:
        """What follows each of these token ids, which are none's turn but the model's; as `replies`."""
        found: dict[int, Reply] = {}
        for batch in self._batch(prompts, sampling.max_tokens):
            written = self._generate([prompts[i] for i in batch], sampling, None)
            for i, ids in zip(batch, written, strict=True):
                found[i] = self._reply(prompts[i], ids)
        return [found[i] for i in range(len(prompts))]

    def _batch(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
        """Places of prompts that run together, the longest first, so that little is padded."""
        batch: list[int] = []
        widest = 0
        for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
            full = (len(batch) + 1) * (widest + max_tokens) > _BATCH_TOKENS or not self.batches
            if batch and full:
                yield batch
                batch = []
            if not batch:
                widest = len(prompts[i])
            batch.append(i)
        if batch:
            yield batch

    def _generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, streamer: _Streamer | None
    ) -> list[list[int]]:
        """What is written after each prompt, up to and with the token that stops it."""
        widest = max(len(prompt) for prompt in prompts)
        ids = torch.zeros((len(prompts), widest), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):  # padded on the left: all replies begin at one place
            ids[row, widest - len(prompt) :] = torch.tensor(prompt, dtype=torch.int64)
            mask[row, widest - len(prompt) :] = 1
        device = _plain(self.model).device
        config = self._config(sampling, room=self._room(widest, sampling))
        generate = cast("Callable[..., Tensor]", self.model.generate)
        with torch.inference_mode(), quiet(), self.weights(), _drawn_by(sampling):
            whole = generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=config,
                streamer=streamer,
            )
        rows = cast("list[list[int]]", whole[:, widest:].tolist())
        return [self._up_to_stop(row) for row in rows]

    @contextlib.contextmanager
    def weights(self) -> Generator[None]:
        """For as long as it lasts the model is the one that answers here: with its adapter, or without."""
        if isinstance(self.model, PeftModel) and not self._adapter:
            with self.model.disable_adapter():
                yield
        else:
            yield

    def _room(self, prompt_tokens: int, sampling: Sampling) -> int:
        if self.limit is None:
            return sampling.max_tokens
        room = self.limit - prompt_tokens
        if room < 1:
            raise ConfigError(
                f"the conversation is {prompt_tokens:,} tokens long; the model takes {self.limit:,} "
                "with its reply",
                remedy="begin a new conversation, or say it in fewer words",
            )
        return min(room, sampling.max_tokens)

    def _config(self, sampling: Sampling, *, room: int) -> GenerationConfig:
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
        return GenerationConfig(
            max_new_tokens=room,
            eos_token_id=list(self.stop_ids) or None,
            pad_token_id=self.stop_ids[0] if self.stop_ids else 0,
            **(({**drawn, "top_k": 0}) if sampling.temperature > 0 else {"do_sample": False}),
        )

    def _up_to_stop(self, ids: list[int]) -> list[int]:
        for place, token in enumerate(ids):
            if token in self.stop_ids:
                return ids[: place + 1]
        return ids

    def _reply(self, prompt: Sequence[int], ids: list[int]) -> Reply:
        stopped = bool(ids) and ids[-1] in self.stop_ids
        finish: Literal["stop", "length"] = "stop" if stopped else "length"
        said = ids[:-1] if stopped else ids
        text = text_of(self.renderer.tokenizer, prompt, said)
        return Reply(text, tuple(ids), finish, len(prompt))


class _Streamer(BaseStreamer):
    """Passes text on as `generate` writes it; the prompt comes first and is left out."""

    def __init__(
        self, completer: LocalCompleter, prompt: Sequence[int], on_text: Callable[[str], None]
    ) -> None:
        self._stops = completer.stop_ids
        self._text = TextStream(completer.renderer.tokenizer, prompt)
        self._on_text = on_text
        self._is_prompt = True

    def put(self, value: Any) -> None:
        """Take the next token, [1]."""
        if self._is_prompt:
            self._is_prompt = False
            return
        tokens = cast("list[int]", cast(Tensor, value).reshape(-1).tolist())
        for token in tokens:
            if token not in self._stops:
                self._say(self._text.push(token))

    def end(self) -> None:
        """Part of the interface; the completer ends the text itself."""

    def finish(self) -> None:
        """Say what was still waiting."""
        self._say(self._text.end())

    def _say(self, text: str) -> None:
        if text:
            self._on_text(text)


@contextlib.contextmanager
def _drawn_by(sampling: Sampling) -> Generator[None]:
    """The seed's own randomness, where one is given; the process's goes on untouched."""
    if sampling.temperature == 0 or sampling.seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(sampling.seed)
        yield


def _plain(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model of transformers, inside the adapters where there are some."""
    if isinstance(model, PeftModel):
        return cast(PreTrainedModel, model.get_base_model())
    return model
