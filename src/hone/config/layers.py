"""Lays the five sources of settings over each other: defaults, file, environment, overrides, flags.

It knows where each value came from; it knows nothing of what a setting means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError

from hone.config.complaints import Complaint, raise_complaints, translate
from hone.config.dialects.choice import Dialect, read_foreign
from hone.config.dialects.foreign import Translation
from hone.config.fields import (
    ENVIRONMENT_PREFIX,
    Setting,
    nearest_setting,
    nearest_variable,
    sections,
    settings,
)
from hone.config.files import read_yaml
from hone.config.include import read_with_includes
from hone.config.sections import Config, QuantizationSection, TrainSection
from hone.config.values import Node, fit, plain_scalar, takes_structure, wants_text
from hone.errors import ConfigError

NOT_SETTINGS = frozenset({"HONE_CACHE", "HONE_LLAMAFACTORY", "HONE_SHARED"})
"""Names that begin like a setting's and are none: the cache of prepared data, LLaMA-Factory's Python, the tests' material."""
COMMAND_LINE = "command line"
DEFAULT = "default"


@dataclass(frozen=True)
class Resolved:
    """A configuration and where each of its values came from."""

    config: Config
    origins: Mapping[str, str]
    """Dotted name to `default`, `config.yaml:12`, `environment HONE_...` or `command line`."""
    remarks: tuple[str, ...] = ()
    """What a user should hear of how another language's settings were fitted."""


@dataclass
class _Gathered:
    """What the sources said so far, later over earlier, and what is wrong with it."""

    values: dict[str, object] = field(default_factory=dict[str, object])
    origins: dict[str, str] = field(default_factory=dict[str, str])
    complaints: list[Complaint] = field(default_factory=list[Complaint])

    def put_foreign(self, made: Translation) -> None:
        """Set what a file in another language comes to."""
        self.values |= made.values
        self.origins |= made.origins
        self.complaints += made.complaints

    def put(self, name: str, node: Node, origin: str) -> None:
        """Set one value, an entry of one, or every value of a section."""
        if name in settings():
            self._put_setting(settings()[name], node, origin)
        elif name in sections() or not name:
            self._put_section(name, node, origin)
        else:
            parent, _, key = name.rpartition(".")
            if parent in settings() and settings()[parent].is_mapping:
                self._put_entry(settings()[parent], key, node, origin)
            else:
                remedy = nearest_setting(name)
                self.complaints.append(Complaint(f"unknown setting {name!r}", origin, remedy))

    def _put_setting(self, setting: Setting, node: Node, origin: str) -> None:
        self.values[setting.name] = fit(node, setting.annotation)
        self.origins = {
            key: said
            for key, said in self.origins.items()
            if not key.startswith(f"{setting.name}.")
        }
        self.origins[setting.name] = origin

    def _put_entry(self, setting: Setting, key: str, node: Node, origin: str) -> None:
        before = self.values.get(setting.name)
        entry = cast("dict[str, object]", fit(Node(entries={key: node}), setting.annotation))
        kept = cast("dict[str, object]", before) if isinstance(before, dict) else {}
        self.values[setting.name] = kept | entry
        self.origins[f"{setting.name}.{key}"] = origin

    def _put_section(self, name: str, node: Node, origin: str) -> None:
        if node.is_null:  # `train:` with nothing below it says nothing
            return
        if node.entries is None:
            what = f"{name} is a section, not a value"
            example = next(key for key in settings() if key.startswith(f"{name}."))
            self.complaints.append(Complaint(what, origin, f"set one of its keys, e.g. {example}"))
            return
        for key, child in node.entries.items():
            file = child.file or origin.rpartition(":")[0]
            said = origin if child.line is None else f"{file}:{child.line}"
            self.put(f"{name}.{key}" if name else key, child, said)


def resolve(
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, str | None] | None = None,
    dialect: Dialect | None = None,
    devices: Callable[[], int] | None = None,
) -> Resolved:
    """The configuration that the sources give together, later ones over earlier ones.

    `overrides` are `train.learning_rate=1e-4`; `flags` map a dotted name to what was typed (None: not
    typed). A file in another system's language is read as settings of ours: it is recognised, or `dialect` says
    which. `devices` counts this machine's, for languages that count rows per device. Raises ConfigError with
    everything that is wrong, each with where it was said.
    """
    gathered = _Gathered()
    made: Translation | None = None
    if file is not None:
        root = read_with_includes(file)
        foreign = read_foreign(root, file, environment or {}, overrides, dialect)
        if foreign is None:
            gathered.put("", root, f"{file}:1")
        else:
            made, overrides = foreign
            gathered.put_foreign(made)
    for name, value in sorted((environment or {}).items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS:
            _put_environment(gathered, name, value)
    # As they are written on the command line of make: TRAIN_LEARNING_RATE=1e-4.
    spoken = {name.replace(".", "_").upper(): name for name in settings()}
    for text in overrides:
        name, equals, value = text.partition("=")
        if equals and name.strip():
            _put_words(gathered, spoken.get(name.strip(), name.strip()), value, COMMAND_LINE)
        else:
            remedy = "write section.key=value, e.g. train.epochs=1"
            gathered.complaints.append(Complaint(f"{text!r} is no setting", COMMAND_LINE, remedy))
    for name, value in (flags or {}).items():
        if value is not None:
            _put_words(gathered, name, value, COMMAND_LINE)
    if made is None:
        return _validated(gathered)
    remarks = (*made.remarks, *_rows_of_all_devices(gathered, made, devices))
    return replace(_validated(gathered), remarks=remarks)


def _rows_of_all_devices(
    gathered: _Gathered, made: Translation, devices: Callable[[], int] | None
) -> Iterable[str]:
    """Where a language counts rows per device, set the rows of a step on all of them, and say so."""
    name = "train.batch_size"
    rows = made.rows_per_device
    if rows is None or gathered.origins.get(name) != made.origins.get(name):
        return
    asked = gathered.values.get("compute.nproc")
    alone = gathered.values.get("compute.device") == "cpu" or devices is None
    ranks = asked if isinstance(asked, int) else 1 if alone else max(1, devices() if devices else 1)
    machines = gathered.values.get("compute.nnodes")
    world = ranks * (machines if isinstance(machines, int) else 1)
    gathered.values[name] = rows * world
    if world > 1:
        yield f"{name}: {rows * world} rows a step: {rows} for each of {world} devices"


def resolve_values(values: Mapping[str, object], origins: Mapping[str, str]) -> Resolved:
    """The configuration that ready values give, each under its dotted name: what another language comes to.

    `origins` say where, for those that a user said. Raises ConfigError with everything that is wrong.
    """
    return _validated(_Gathered(dict(values), dict(origins)))


def _put_environment(gathered: _Gathered, variable: str, value: str) -> None:
    by_variable = {setting.environment: name for name, setting in settings().items()}
    name = by_variable.get(variable)
    if name is None:
        near = nearest_variable(variable)
        remedy = f"did you mean {near}? " if near else ""
        remedy += "a variable is HONE_SECTION_KEY; `hone config show` lists sections and keys"
        gathered.complaints.append(
            Complaint(f"unknown setting {variable!r}", "environment", remedy)
        )
    else:
        _put_words(gathered, name, value, f"environment {variable}")


def _put_words(gathered: _Gathered, name: str, text: str, origin: str) -> None:
    try:
        node = _from_words(text, _annotation_of(name), name)
    except ConfigError as error:
        gathered.complaints.append(Complaint(f"{name}: {error.what}", origin, error.remedy))
        return
    gathered.put(name, node, origin)


def _annotation_of(name: str) -> Any:
    """What may stand at a dotted name; anything, where a section or an entry is meant."""
    if name in settings():
        return settings()[name].annotation
    parent = settings().get(name.rpartition(".")[0])
    return str if parent is not None and parent.annotation == dict[str, str] else Any


def _from_words(text: str, annotation: Any, name: str) -> Node:
    """The node in a word from the shell: quoted, `[a, b]`, `{a: b}`, or plain.

    A text setting takes its words as they are, spaces and all, unless the whole word is quoted.
    """
    stripped = text.strip()
    is_quoted = len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "\"'"
    ends = stripped[:1] + stripped[-1:]
    if is_quoted or (ends in ("[]", "{}") and takes_structure(annotation)):
        try:
            node = read_yaml(stripped, name, with_lines=False)
            if node is not None:
                return node
        except ConfigError:
            if not wants_text(annotation):
                raise
    return plain_scalar(text if wants_text(annotation) else stripped)


def _validated(gathered: _Gathered) -> Resolved:
    tree: dict[str, Any] = {}
    for name, value in gathered.values.items():
        *parents, key = name.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[key] = value
    complaints = [*gathered.complaints, *_not_unicode(gathered)]
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise_complaints([*complaints, *translate(error, gathered.values, gathered.origins)])
    complaints += _contradictions(config, gathered.origins)
    if complaints:
        raise_complaints(complaints)
    origins = {name: gathered.origins.get(name, DEFAULT) for name in settings()}
    entries = {key: said for key, said in gathered.origins.items() if key not in origins}
    return Resolved(config, origins | entries)


def _contradictions(config: Config, said: Mapping[str, str]) -> Iterable[Complaint]:
    """A complaint for each setting that was said, would change the result, and cannot with the others as they are.

    A value that is the default is none: a written configuration says every key.
    """
    tuning = config.tuning
    for key, default in QuantizationSection():
        name = f"tuning.quantization.{key}"
        asked = name in said and getattr(tuning.quantization, key) != default
        if asked and tuning.method != "qlora":
            yield Complaint(
                f"{name} is for a quantised base, and tuning.method is {tuning.method!r}",
                said[name],
                f"set tuning.method=qlora, or remove {name}",
            )


def _not_unicode(gathered: _Gathered) -> Iterable[Complaint]:
    """A complaint for each text that no file can hold: bytes of the shell that are not UTF-8."""
    for name, value in gathered.values.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            what = f"{name} is not UTF-8 text"
            yield Complaint(what, gathered.origins.get(name), "rename the file, or fix the text")


def _idle_in_training(train: TrainSection) -> list[tuple[Iterable[str], bool, str]]:
    """Settings of the schedule and the optimizer that others leave without effect."""
    schedule = f"train.schedule is {train.schedule!r}"
    floor, decay = "train.min_learning_rate_ratio", ("train.decay_ratio", "train.decay_shape")
    return [
        (("train.warmup_ratio",), train.warmup_steps is not None, "train.warmup_steps is set"),
        ((floor,), train.schedule == "constant", schedule),
        (decay, train.schedule != "wsd", schedule),
        (("train.betas",), train.optimizer == "adafactor", "train.optimizer is 'adafactor'"),
    ]


_TRACKERS_WITH: Final[Mapping[str, frozenset[str]]] = {
    "project": frozenset({"wandb", "trackio", "mlflow"}),
    "name": frozenset({"wandb", "trackio", "mlflow"}),
    "tags": frozenset({"wandb", "mlflow"}),
    "entity": frozenset({"wandb"}),
    "uri": frozenset({"mlflow"}),
    "folder": frozenset({"tensorboard", "wandb"}),
    "config": frozenset({"tensorboard", "wandb", "trackio", "mlflow"}),
    "log_model": frozenset({"wandb"}),
}


def _idle_tracking(config: Config) -> Iterable[tuple[Iterable[str], bool, str]]:
    """For each setting of trackers: whether none of those that are told knows it."""
    chosen = set(config.output.trackers)
    for key, trackers in _TRACKERS_WITH.items():
        reason = f"output.trackers names none of {', '.join(sorted(trackers))}"
        yield (f"output.track.{key}",), not chosen & trackers, reason


def idle_settings(resolved: Resolved) -> list[str]:
    """One sentence for each setting that was said and has no effect with the others as they are; remarks first."""
    config, said = resolved.config, {k for k, v in resolved.origins.items() if v != DEFAULT}
    tuning, method = config.tuning, f"tuning.method is {config.tuning.method!r}"
    four_bits = ("tuning.quantization.quant_type", "tuning.quantization.double_quant")
    idle: list[tuple[Iterable[str], bool, str]] = [
        (
            (name for name in said if name.startswith("tuning.lora.")),
            not tuning.is_adapter,
            method,
        ),
        (
            (name for name in said if name.startswith("tuning.freeze.")),
            tuning.method != "freeze",
            method,
        ),
        (
            ("tuning.freeze.trainable_modules",),
            tuning.method == "freeze" and tuning.freeze.trainable_layers == 0,
            "tuning.freeze.trainable_layers is 0",
        ),
        (
            ("tuning.lora.pissa_niter",),
            tuning.is_adapter and tuning.lora.init != "pissa",
            f"tuning.lora.init is {tuning.lora.init!r}",
        ),
        (
            (name for name in said if name.startswith("tuning.quantization.")),
            tuning.method != "qlora",
            method,
        ),
        (
            four_bits,
            tuning.method == "qlora" and tuning.quantization.bits == 8,
            "tuning.quantization.bits is 8",
        ),
        (("model.new_token_init",), not config.model.additions, "model.new_tokens is empty"),
        (("train.epochs",), config.train.max_steps is not None, "train.max_steps is set"),
        (("compute.share_prefixes",), not config.compute.pack, "compute.pack is false"),
        (
            ("compute.share_prefixes",),
            config.train.neftune_alpha > 0 and config.compute.share_prefixes,
            "train.neftune_alpha is set, and its noise depends on a row's length",
        ),
        (
            ("train.lora_plus_ratio",),
            not config.tuning.method.endswith("lora"),
            f"tuning.method is {config.tuning.method!r}",
        ),
        *_idle_in_training(config.train),
        (
            ("train.sample_prompts", "train.sample_tokens", "train.sample_temperature"),
            config.train.sample_steps is None,
            "train.sample_steps is unset",
        ),
        (
            (f"data.{key}" for key in ("chunk_size", "overlap", "min_text_length", "block_size")),
            True,
            "it says how `hone documents` cuts",
        ),
        *_idle_tracking(config),
        (
            ("compute.node_rank", "compute.rdzv_endpoint"),
            config.compute.nnodes == 1,
            "compute.nnodes is 1",
        ),
    ]
    return list(resolved.remarks) + [
        f"{name} has no effect: {reason}"
        for names, applies, reason in idle
        for name in sorted(names)
        if applies and name in said
    ]
