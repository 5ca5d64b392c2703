"""`template`: what a model's chat template writes, and whether training and inference agree on it. It draws nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hone.config.sections import Config
from hone.data.ledger import Ledger
from hone.data.misfit import template_notices
from hone.data.properties import Property, Verdict, properties
from hone.data.render import Renderer
from hone.data.road import RoadRow
from hone.data.specimens import SPECIMENS
from hone.data.template import load_template
from hone.errors import ConfigError
from hone.infer.stops import named_stop_ids
from hone.models.source import find_model
from hone.recipes.preview import NO_LIMIT, Preview
from hone.recipes.source import load_tokenizer


@dataclass(frozen=True, slots=True)
class Report:
    """What was tried on a model's template. `broken` where one of the properties is."""

    model: str
    template: str
    """Whose it is: the model's own, a name, or a file."""
    properties: list[Property]

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        found = {one.verdict for one in self.properties}
        return "broken" if "broken" in found else "handled" if "handled" in found else "ok"

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        told = [
            {"name": one.name, "verdict": one.verdict, "sentence": one.sentence}
            for one in self.properties
        ]
        return {
            "model": self.model,
            "template": self.template,
            "verdict": self.verdict,
            "properties": told,
        }


@dataclass(frozen=True, slots=True)
class Shown:
    """A template's source, and made-up conversations as training would receive them."""

    template: str
    source: str
    tool_source: str | None
    """The model's second template, for conversations with tools."""
    names: list[str]
    """What each conversation has in it, in the order of the preview's rows."""
    preview: Preview

    def to_json(self) -> dict[str, Any]:
        """Source and conversations as plain JSON."""
        rows = zip(self.names, self.preview.rows, strict=True)
        return {
            "template": self.template,
            "source": self.source,
            "tool_source": self.tool_source,
            "conversations": [
                {
                    "name": name,
                    "refused": row.dropped or None,
                    "examples": [
                        [
                            {
                                "text": self.preview.tokenizer.text_of(token),
                                "id": token,
                                "trained": weight > 0,
                                "control": self.preview.is_control(token),
                            }
                            for token, weight in zip(
                                one.input_ids.tolist(), one.weight.tolist(), strict=True
                            )
                        ]
                        for one in row.examples
                    ],
                }
                for name, row in rows
            ],
        }


def check_template(config: Config) -> Report:
    """Try every property of the template that `config` names for its model. Raises ConfigError, ModelError."""
    renderer, whose, stops = _renderer(config)
    found = properties(renderer, stops)
    notices = template_notices(renderer.tokenizer, renderer.template)
    if renderer.template.origin != "model":
        found.insert(0, _choice(renderer, notices))
    return Report(config.model.name, whose, found)


def show_template(config: Config) -> Shown:
    """The template that `config` names for its model, at work. Raises ConfigError, ModelError."""
    renderer, whose, _ = _renderer(config)
    rows: list[RoadRow] = []
    ledger = Ledger(file="made up")
    for conversation in SPECIMENS.values():
        made = renderer.render_all([conversation])[0]
        fault = "" if made.fault is None else made.fault.what
        rows.append(RoadRow(conversation.origin, made.examples, made.examples, fault))
    preview = Preview(rows, ledger, renderer.tokenizer, whose, NO_LIMIT, renderer.control.ids)
    template = renderer.template
    return Shown(whose, template.source, template.tool_source, list(SPECIMENS), preview)


def _renderer(config: Config) -> tuple[Renderer, str, frozenset[int]]:
    if not config.model.name:
        raise ConfigError(
            "no model, whose tokenizer and chat template are needed",
            remedy="type: hone template check FOLDER_OR_HUB_ID",
        )
    folder = find_model(config.model)
    tokenizer = load_tokenizer(config.model, folder)
    template = load_template(
        tokenizer, choice=config.data.template, variables=config.data.template_kwargs
    )
    whose = {"model": "the model's own", "file": config.data.template or "a file"}
    name = whose.get(template.origin, template.origin)
    return Renderer(tokenizer, template), name, named_stop_ids(tokenizer, folder)


def _choice(renderer: Renderer, notices: list[tuple[str, str]]) -> Property:
    """Whose template it is, where it is not the model's."""
    if notices:
        said = "\n".join(text for _, text in notices)
        return Property(
            "choice",
            "handled",
            f"{said}\nwhat is tuned is saved with the template that it was tuned with",
        )
    if renderer.tokenizer.chat_template is None:
        return Property("choice", "ok", "the model has no template of its own")
    return Property("choice", "ok", "the template writes what the model's own does")
