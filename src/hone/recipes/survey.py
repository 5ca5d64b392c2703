"""`validate --report`: the whole story of a file of rows. It composes judge, renderer and survey, and prints nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from hone.config.sections import Config, DataSection
from hone.data.conversation import Content, Conversation, Document
from hone.data.example import Example
from hone.data.formats import RowFormat
from hone.data.importers.row_file import RowFile
from hone.data.misfit import template_notices
from hone.data.raw_rows import RawRow, RawRows
from hone.data.render import Rendered, Renderer
from hone.data.template import load_template
from hone.data.validation.advice import explained
from hone.data.validation.judge import Judge
from hone.data.validation.survey import Measure, Survey
from hone.data.validation.verdict import FAST_BYTES, settled_shape
from hone.errors import ConfigError, DataError
from hone.models.facts import longest_row
from hone.models.source import find_model, read_config
from hone.recipes.cache import cache_folder
from hone.recipes.rows import found_rows
from hone.recipes.source import load_tokenizer
from hone.recipes.validate import Say, check_rules

_BATCH_ROWS: Final = 64


@dataclass
class Report:
    """A survey in words and numbers; `findings` are what to look at, the most frequent first."""

    unit: str
    rows: int
    shapes: dict[str, int]
    roles: dict[str, int]
    turns: dict[str, Any]
    lengths: dict[str, Any]
    total: int
    trained: int
    lost: int
    limit: int | None
    against: dict[str, Any] | None
    findings: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    notices: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; lengths count `unit`."""
        share = self.trained / self.total if self.total else 0.0
        return {
            "unit": self.unit,
            "rows": self.rows,
            "shapes": self.shapes,
            "roles": self.roles,
            "turns": self.turns,
            "lengths": self.lengths,
            "total": self.total,
            "trained": self.trained,
            "trained_share": round(share, 6),
            "lost_to_limit": self.lost,
            "limit": self.limit,
            "against": self.against,
            "findings": self.findings,
            "notices": self.notices,
        }


def survey(
    config: Config, path: str, say: Say, *, against: str | None = None, rules: str = "full"
) -> Report:
    """The story of the rows of `path` that can be used, in tokens where `config` names a model.

    `against` is a file of held-out rows that is looked for among them. Raises ConfigError, DataError for a file
    that cannot be read, ModelError, EnvironmentFault.
    """
    check_rules(rules)
    section = config.data
    if section.max_length is not None and not config.model.name:
        raise ConfigError(
            "data.max_length counts tokens, and there is no model", remedy="add --model FOLDER"
        )
    file = found_rows(section, path, say)
    scale = _Tokens.of(config, file) if config.model.name else None
    seen = Survey("characters" if scale is None else "tokens")
    contents = _contents(file, section, rules, seen.shapes)
    while batch := list(islice(contents, _BATCH_ROWS)):
        measured = _in_characters(batch) if scale is None else scale.measure(batch)
        for (shape, content), measure in zip(batch, measured, strict=True):
            seen.add(shape, content, measure)
    compared = None if against is None else _compare(seen, section, against, rules, say)
    seen.finish()
    return _report(seen, scale, compared)


@dataclass
class _Tokens:
    """Measures rows in a model's tokens."""

    renderer: Renderer
    limit: int | None
    notices: list[str]

    @classmethod
    def of(cls, config: Config, file: RowFile) -> _Tokens:
        folder = find_model(config.model)
        limit = config.data.max_length
        if limit is None and (folder / "config.json").is_file():
            limit = longest_row(read_config(folder))
        tokenizer = load_tokenizer(config.model, folder)
        template = load_template(
            tokenizer, choice=config.data.template, variables=config.data.template_kwargs
        )
        is_large = file.path.stat().st_size >= FAST_BYTES
        encoder = tokenizer.fast_encoder(cache_folder() / "encoders") if is_large else None
        data = config.data
        renderer = Renderer(
            tokenizer, template, data.train_on, encoder, separators=data.train_separators
        )
        notices = [text for _, text in template_notices(tokenizer, template)]
        return cls(renderer, limit, notices)

    def measure(self, batch: Sequence[tuple[str, Content]]) -> list[Measure]:
        rendered = self.renderer.render_all([content for _, content in batch])
        return [self._one(one) for one in rendered]

    def _one(self, rendered: Rendered) -> Measure:
        examples = [one for one in rendered.examples if one.num_trained_tokens]
        remarks = list(rendered.remarks)
        if rendered.fault is not None:
            remarks.append("template-refuses")
        elif not examples:
            remarks.append("nothing-to-train")
        limit = self.limit
        longest = max((one.num_tokens for one in examples), default=0)
        return Measure(
            longest,
            sum(one.num_tokens for one in examples),
            sum(one.num_trained_tokens for one in examples),
            limit is not None and longest > limit,
            sum(_lost(one, limit) for one in examples),
            tuple(remarks),
        )


def _lost(example: Example, limit: int | None) -> int:
    """Trained tokens that a cut to the limit takes."""
    if limit is None or example.num_tokens <= limit:
        return 0
    return example.num_trained_tokens - example.cut(limit).num_trained_tokens


def _in_characters(batch: Sequence[tuple[str, Content]]) -> list[Measure]:
    measured: list[Measure] = []
    for _, content in batch:
        if isinstance(content, Conversation):
            sizes = [(len(one.content) + len(one.reasoning or ""), one) for one in content.messages]
            total = sum(size for size, _ in sizes)
            trained = sum(
                size
                for size, one in sizes
                if (one.role == "assistant" if one.weight is None else one.weight > 0)
            )
        elif isinstance(content, Document):
            total = trained = len(content.text)
        else:
            total, trained = len(content.input_ids), int((content.weight > 0).sum())
        measured.append(Measure(total, total, trained))
    return measured


def _contents(
    file: RowFile, section: DataSection, rules: str, shapes: Counter[str]
) -> Iterator[tuple[str, Content]]:
    """The rows that can be used, with their shape; the others are counted by shape in `shapes`."""
    judge = Judge(settled_shape(file.path, section), section.columns, section.tags, rules)
    for raw in RawRows(file.path):
        try:
            content = judge.read(raw.parse().value, raw.origin, len(raw.data))
        except DataError:
            shapes[f"unusable {_shape_alone(raw, section)}"] += 1
            continue
        yield judge.shape, content


def _shape_alone(raw: RawRow, section: DataSection) -> str:
    """The shape of a row by itself."""
    form = RowFormat("auto", section.columns, section.tags)
    with suppress(DataError, ConfigError):
        form.read(raw.parse())
    return form.shape or "row"


def _compare(
    seen: Survey, section: DataSection, against: str, rules: str, say: Say
) -> dict[str, Any]:
    own: dict[str, Any] = {"split": None, "subset": None, "max_rows": None, "revision": None}
    held = found_rows(section.model_copy(update=own), against, say, prefer="validation")
    unusable: Counter[str] = Counter()
    rows = seen.compare(content for _, content in _contents(held, section, rules, unusable))
    return {"file": held.name, "rows": rows, "unusable_rows": sum(unusable.values())}


def _report(seen: Survey, scale: _Tokens | None, compared: dict[str, Any] | None) -> Report:
    findings: list[dict[str, Any]] = []
    for code, tally in sorted(seen.findings.items(), key=lambda item: -item[1].count):
        what, advice = explained(code)
        findings.append(
            {
                "code": code,
                "rows": tally.count,
                "lines": tally.lines,
                "what": what,
                "advice": advice,
            }
        )
    return Report(
        seen.unit,
        seen.rows,
        dict(seen.shapes),
        dict(seen.roles),
        seen.turns.to_json(),
        seen.lengths.to_json(),
        seen.total,
        seen.trained,
        seen.lost,
        None if scale is None else scale.limit,
        compared,
        findings,
        [] if scale is None else scale.notices,
    )
