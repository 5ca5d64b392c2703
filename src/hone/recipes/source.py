"""What a run starts from, known without torch: the model's files, its tokenizer and template, prepared rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.config.sections import Config, ModelSection
from hone.data.misfit import template_notices
from hone.data.prepare import Prepared, prepare
from hone.data.template import ChatTemplate, load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError
from hone.models import facts
from hone.models.quantization import require_bitsandbytes
from hone.models.source import check_weights, find_model, fingerprint, read_config
from hone.recipes.cache import cache_folder
from hone.recipes.continued import adapter_folder, adapter_hash
from hone.recipes.rows import held_out_rows, training_rows
from hone.runs.events import Say

_SAMPLED_ROWS = 256  # rows whose last trained token is looked at


@dataclass(frozen=True)
class Source:
    """Everything of a run that is known without torch."""

    base: Path
    tokenizer: TextTokenizer
    template: ChatTemplate
    prepared: Prepared
    hashes: dict[str, str | None]
    adapter: Path | None = None
    """The folder of the adapter that is trained further."""


def load_tokenizer(model: ModelSection, base: Path) -> TextTokenizer:
    """The model's tokenizer with the new tokens that `model` names; an adapter's own where it has one."""
    home = base
    if model.adapter is not None and (adapter_folder(model) / "tokenizer.json").is_file():
        home = adapter_folder(model)
    return TextTokenizer.load(home, model.additions)


def read_source(config: Config, say: Say, *, follow: bool = False) -> Source:
    """Find the model, check its files, prepare the rows. Nothing is written into the run folder yet.

    With `follow`, another process of this machine prepares these very rows: they are awaited in the cache.
    """
    if not config.model.name:
        raise ConfigError("no model", remedy="add --model FOLDER_OR_HUB_ID")
    if not (config.data.path or config.data.sources):
        raise ConfigError("no data", remedy="name a file of rows: hone train DATA --model MODEL")
    if config.tuning.method == "qlora":
        require_bitsandbytes()
    base = find_model(config.model)
    adapter = None if config.model.adapter is None else adapter_folder(config.model)
    model_config = read_config(base)
    check_weights(base)
    tokenizer = load_tokenizer(config.model, base)
    if tokenizer.known:
        names = ", ".join(map(repr, tokenizer.known))
        message = f"the tokenizer has {names} already: left as they are, and not trained anew"
        say("notice", code="known-tokens", message=message)
    template = load_template(
        tokenizer, choice=config.data.template, variables=config.data.template_kwargs
    )
    for code, message in template_notices(tokenizer, template):
        say("notice", code=code, message=message)
    limit = facts.longest_row(model_config)
    asked = config.data.max_length
    if asked is not None and limit is not None and asked > limit:
        raise ConfigError(
            f"data.max_length={asked} is more than the model's limit of {limit} tokens",
            remedy=f"set data.max_length to {limit} or less",
        )

    def told(event: str, about: dict[str, Any]) -> None:
        say(event, **about)

    prepared = prepare(
        config.data,
        rows=training_rows(config.data, told),
        held_out=held_out_rows(config.data, told),
        tokenizer=tokenizer,
        template=template,
        max_length=asked or limit or 2**31 - 1,
        cache_dir=cache_folder() / "data",
        say=told,
        wait=False,
        follow=follow,
    )
    validation = prepared.validation
    return Source(
        base,
        tokenizer,
        template,
        prepared,
        {
            "data": prepared.train.fingerprint,
            "validation": None if validation is None else validation.fingerprint,
            "model": fingerprint(base),
            "adapter": None if adapter is None else adapter_hash(adapter),
        },
        adapter,
    )


def turn_ends(source: Source) -> list[int]:
    """The tokens that end a trained turn, read off the prepared rows themselves."""
    rows = source.prepared.train
    added = {token.id for token in source.tokenizer.added}
    last = {
        int(example.input_ids[example.weight.nonzero()[0][-1]])
        for row in range(min(rows.num_rows, _SAMPLED_ROWS))
        for example in rows.examples(row)
    }
    return sorted(last & added)
