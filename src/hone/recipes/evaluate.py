"""`evaluate`: a model's losses and answers on rows, measured beside its base, as files and one page. It prints nothing.

rows -> losses (the engine's own) and answers (the server's batch) of each model -> measures with intervals -> result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hone.config.layers import resolve
from hone.config.sections import Config
from hone.data.prepare import Prepared, Rows, prepare
from hone.data.raw_rows import RawRows
from hone.data.road import row_format
from hone.errors import ConfigError, DataError, HoneError
from hone.infer.completer import GREEDY, Sampling
from hone.infer.place import Place
from hone.models.facts import longest_row
from hone.models.source import read_config
from hone.recipes.cache import cache_folder
from hone.recipes.evaluation import gate, harness
from hone.recipes.evaluation.answer import Answer, Asker, Unasked
from hone.recipes.evaluation.bootstrap import Draws
from hone.recipes.evaluation.choice import Chosen, Wishes, choose
from hone.recipes.evaluation.judge import Judge, Verdicts, judge_answers, judge_measure
from hone.recipes.evaluation.losses import Losses, losses
from hone.recipes.evaluation.measure import LOSSES
from hone.recipes.evaluation.players import TUNED, Player, Sides, find_sides, players
from hone.recipes.evaluation.question import Reading, read_questions
from hone.recipes.evaluation.report import Finding, write
from hone.recipes.evaluation.result import Taken, samples, take, take_losses
from hone.recipes.herald import Herald
from hone.recipes.memory_fault import memory_faults
from hone.recipes.rows import found_rows
from hone.runs.events import Listener, Say

_SETTINGS: Final = ("data", "compute")
_NO_LIMIT: Final = 2**31 - 1
_EVALUATIONS: Final = Path("evaluations")


@dataclass(frozen=True)
class Order:
    """What is evaluated, on which rows, and what is wanted of it.

    `limit` is the most rows of each source, from its beginning; `rows_at_once` how many answers are written at the same
    time. Raises ConfigError for what makes no sense.
    """

    name: str
    data: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    base: str | None = None
    alone: bool = False
    revision: str | None = None
    wishes: Wishes = field(default_factory=Wishes)
    limit: int | None = None
    sampling: Sampling = GREEDY
    rows_at_once: int = 64
    judge: Judge | None = None
    tasks: tuple[str, ...] = ()
    task_folder: Path | None = None
    gates: tuple[str, ...] = ()
    draws: Draws = field(default_factory=Draws)
    out: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if not self.data and not self.tasks:
            raise ConfigError(
                "nothing to evaluate on",
                remedy="name rows: hone evaluate RUN DATA.jsonl, or --task NAME",
            )
        if len(set(self.data)) < len(self.data):
            raise ConfigError("the same rows are named twice", remedy="name each once")
        gates = gate.read_gates(self.gates)
        if gates and not self.data:
            raise ConfigError("--fail-under needs rows to measure on", remedy="name DATA")
        names = self.wishes.names
        if names and (extra := [name for name in gates if name not in names]):
            raise ConfigError(
                f"--fail-under {extra[0]}: it is not among the measures that --metric names",
                remedy=f"add --metric {extra[0]}",
            )


@dataclass
class _Side:
    """What one model came to."""

    player: str
    label: str
    losses: Losses | None = None
    answers: dict[int, Answer] = field(default_factory=dict[int, Answer])
    seconds: float = 0.0
    is_alike: bool = True


@dataclass
class _Work:
    """An evaluation under way."""

    order: Order
    say: Say
    sides: Sides
    config: Config
    reading: Reading = field(default_factory=Reading)
    chosen: Chosen = field(default_factory=Chosen)
    unasked: dict[int, Unasked] = field(default_factory=dict[int, Unasked])
    found: list[_Side] = field(default_factory=list[_Side])


def evaluate(
    order: Order,
    *,
    listeners: Sequence[Listener] = (),
    on_finding: Callable[[Finding], None] | None = None,
) -> Finding:
    """Evaluate as `order` says, write the result, and return it; `on_finding` gets it whatever its gates say.

    Raises ConfigError, DataError, ModelError and EnvironmentFault before a model is loaded where the input is at fault;
    GateMissed after everything is written; what ended the judge early, after that.
    """
    began = time.monotonic()
    herald = Herald(listeners)
    notices: list[str] = []

    def say(event: str, /, **fields: object) -> None:
        if event == "notice":
            notices.append(str(fields["message"]))
        herald.say(event, **fields)

    if order.tasks:
        harness.require_harness()
    sides = find_sides(order.name, base=order.base, alone=order.alone, revision=order.revision)
    for place in (sides.tuned, sides.base) if order.tasks else ():
        if place is not None:
            harness.refuse_place(place)
    out = order.out or _free_folder(order, sides.tuned)
    Finding.check(out, force=order.force)
    work = _Work(order, say, sides, _settings(order, sides.tuned))
    with memory_faults(lambda: herald.phase):
        if order.data:
            _measure_rows(work)
        tasks = _tasks(work)
    finding, end = _finding(work, tasks, notices, out, began)
    write(finding, force=order.force)
    say("result", **finding.event())
    if on_finding is not None:
        on_finding(finding)
    if end is not None:
        raise end
    gate.raise_missed(gate.missed(gate.read_gates(order.gates), finding.taken), str(out))
    return finding


def _settings(order: Order, place: Place) -> Config:
    """The run's own settings, with the rows that are evaluated, and what was said of `data` and `compute`."""
    said = resolve(overrides=order.settings)
    config = place.config or resolve().config
    sections: dict[str, dict[str, Any]] = {name: {} for name in _SETTINGS}
    for name in said.origins:
        section, _, key = name.partition(".")
        if said.origins[name] == "default":
            continue
        if section not in _SETTINGS:
            raise ConfigError(
                f"{name} has no effect on an evaluation",
                remedy="settings of data and compute have, e.g. data.too_long=drop",
            )
        key = key.partition(".")[0]
        sections[section][key] = getattr(getattr(said.config, section), key)
    rows: dict[str, Any] = {
        "path": order.data[0] if len(order.data) == 1 else "",
        "sources": [],
        "split": None,
        "subset": None,
        "revision": None,
        "streaming": False,
        "max_rows": order.limit,
        "validation_split": 0.0,
        "validation_path": None,
    }
    data = config.data.model_copy(update={**rows, **sections["data"]})
    compute = config.compute.model_copy(update=sections["compute"])
    train = config.train.model_copy(update={"neftune_alpha": 0.0})
    return config.model_copy(update={"data": data, "compute": compute, "train": train})


def _rows(work: _Work) -> list[Rows]:
    """The sources, each under its own name."""

    def told(event: str, about: dict[str, Any]) -> None:
        work.say(event, **about)

    found: list[Rows] = []
    for path in work.order.data:
        section = work.config.data.model_copy(update={"path": path})
        rows = Rows(found_rows(section, path, told, prefer="test"), section)
        found.append(_by_their_keys(rows, work))
    return found


def _by_their_keys(rows: Rows, work: _Work) -> Rows:
    """The rows, read by their own keys where the run's rows had a shape that these do not have."""
    section = rows.section
    is_asked = any(word.partition("=")[0].strip() == "data.format" for word in work.order.settings)
    if section.format == "auto" or is_asked:
        return rows
    try:
        for raw in RawRows(rows.file.path, name=rows.file.name):
            row_format(section).read(raw.parse())
            break
        return rows
    except DataError:
        own = section.model_copy(update={"format": "auto"})
    message = f"{rows.file.name}: read by the keys of its rows, which are not {section.format} as the run's were"
    work.say("notice", code="other-shape", message=message)
    return Rows(rows.file, own)


def _measure_rows(work: _Work) -> None:
    """Read the rows, then each model's losses and answers."""
    wishes, say = work.order.wishes, work.say
    say("phase", name="reading")
    rows = _rows(work)
    try:
        work.reading = read_questions(rows) if wishes.wants_answers else Reading()
    except DataError as fault:
        raise _as_the_run_reads(fault, work) from fault
    say("phase", name="loading")
    for player in players(work.sides):
        for notice in player.notices:
            say("notice", code=f"{player.name}-model", message=notice)
        side = _Side(player.name, player.label, is_alike=player.is_alike)
        asker = Asker(player.completer) if wishes.wants_answers else None
        if player.name == TUNED:
            _choose(work, asker)
        if wishes.wants_losses:
            side.losses = _losses(work, rows, player)
        if asker is not None and (work.chosen.measures or work.chosen.judges):
            _answer(work, player, asker, side)
        work.found.append(side)
        del player, asker


def _choose(work: _Work, asker: Asker | None) -> None:
    """Which measures are taken, known before anything is computed."""
    wishes, questions = work.order.wishes, work.reading.questions
    gates = gate.read_gates(work.order.gates)
    left_out = {name: "not asked for" for name in LOSSES if not wishes.wants_losses}
    if asker is None:
        gate.refuse_unmeasured(gates, left_out)
        return
    if not questions and wishes.names:
        raise DataError(
            "no row holds an answer to compare with",
            where=work.reading.first_silent or ", ".join(work.order.data),
            remedy="give rows that end with an answer; --metric loss needs only something to predict",
        )
    work.chosen = choose(wishes, questions, reads_calls=asker.dialect.calls is not None)
    if not questions:
        why = f"none of {work.reading.rows:,} rows holds an answer to a question"
        work.say("notice", code="no-questions", message=f"only losses are taken: {why}")
        work.chosen = Chosen(left_out=dict.fromkeys(work.chosen.left_out, why))
    elif work.reading.silent:
        first = f"first {work.reading.first_silent}"
        message = f"{work.reading.silent:,} of {work.reading.rows:,} rows hold no answer to a question ({first}): only their loss counts"
        work.say("notice", code="silent-rows", message=message)
    for name, why in work.chosen.left_out.items():
        if "not installed" in why or "template" in why:
            work.say("notice", code="left-out", message=f"{name} is left out: {why}")
    gate.refuse_unmeasured(gates, {**left_out, **work.chosen.left_out})


def _losses(work: _Work, rows: Sequence[Rows], player: Player) -> Losses | None:
    """The losses of one model; None where the rows hold nothing that is learned and answers are measured too."""
    work.say("phase", name=f"losses of {player.name}")
    shape = read_config(player.folder)

    def told(event: str, about: dict[str, Any]) -> None:
        if player.name == TUNED or event != "notice":
            work.say(event, **about)

    try:
        prepared = _prepared(work, rows, player, longest_row(shape), told)
    except DataError as fault:
        raise _as_the_run_reads(fault, work) from fault
    try:
        return losses(player.completer, player.folder, work.config, prepared, work.say)
    finally:
        prepared.close()


def _prepared(
    work: _Work, rows: Sequence[Rows], player: Player, limit: int | None, told: Any
) -> Prepared:
    data = work.config.data
    renderer = player.completer.renderer
    return prepare(
        data,
        rows=rows,
        tokenizer=renderer.tokenizer,
        template=renderer.template,
        max_length=min(data.max_length or _NO_LIMIT, limit or _NO_LIMIT),
        cache_dir=cache_folder() / "data",
        say=told,
    )


def _as_the_run_reads(fault: DataError, work: _Work) -> DataError:
    """The fault, with what the run's own settings have to do with it."""
    data = work.config.data
    own = [f"data.format={data.format}"] if data.format != "auto" else []
    own += [f"data.{name}" for name in ("columns", "tags") if getattr(data, name)]
    if work.sides.tuned.config is None or not own:
        return fault
    hint = f"rows are read as the run read its own ({', '.join(own)}); say otherwise with e.g. data.format=auto"
    remedy = f"{fault.remedy}; {hint}" if fault.remedy else hint
    return type(fault)(fault.what, where=fault.where, remedy=remedy)


def _answer(work: _Work, player: Player, asker: Asker, side: _Side) -> None:
    """Every answer of one model; what one model cannot be asked, no model is."""
    questions = work.reading.questions
    refused = asker.refused(questions)
    new = {i: why for i, why in refused.items() if i not in work.unasked}
    work.unasked |= new
    if new:
        first = min(new)
        message = f"{len(new):,} of {len(questions):,} questions are not asked, first {questions[first].row}: {new[first].reason}"
        work.say("notice", code="unasked", message=message)
    places = [i for i in range(len(questions)) if i not in work.unasked]
    if not places:
        return
    work.say("phase", name=f"answers of {player.name}")
    told = {"done": 0, "tokens": 0}

    def on_reply(tokens: int) -> None:
        told["done"] += 1
        told["tokens"] += tokens
        work.say("answered", model=player.name, of=len(places), **told)

    began = time.monotonic()
    side.answers = asker.answers(
        questions,
        places,
        sampling=work.order.sampling,
        rows=work.order.rows_at_once,
        on_reply=on_reply,
    )
    side.seconds = time.monotonic() - began
    cut = sum(one.finish == "length" for one in side.answers.values())
    if cut:
        message = f"{cut:,} of {len(places):,} answers of {player.name} were cut at the limit of tokens (--max-tokens)"
        work.say("notice", code="cut-answers", message=message)


def _tasks(work: _Work) -> dict[str, dict[str, float]]:
    """The harness's numbers, by model."""
    order, found = work.order, dict[str, dict[str, float]]()
    if not order.tasks:
        return found
    places = {TUNED: work.sides.tuned, "base": work.sides.base}
    for name, place in places.items():
        if place is not None:
            work.say("phase", name=f"tasks of {name}")
            found[name] = harness.run_tasks(
                place, order.tasks, limit=order.limit, include=order.task_folder
            )
    return found


def _judged(work: _Work, out: Path) -> Verdicts | None:
    judge = work.order.judge
    if judge is None or not work.chosen.judges:
        return None
    work.say("phase", name="judging")
    answers = [
        {i: one for i, one in side.answers.items() if i not in work.unasked} for side in work.found
    ]
    verdicts = judge_answers(
        judge, work.reading.questions, answers, journal=out / "judge.journal", say=work.say
    )
    unparsed = list(verdicts.found.values()).count("unparsed")
    if unparsed:
        message = f"{unparsed:,} of {len(verdicts.found):,} replies of the judge hold no verdict: they say nothing, and are counted"
        work.say("notice", code="unparsed-verdicts", message=message)
    return verdicts


def _finding(
    work: _Work, tasks: dict[str, dict[str, float]], notices: list[str], out: Path, began: float
) -> tuple[Finding, HoneError | None]:
    """All measures of all that was found, and what ended the judge early."""
    order, questions, draws = work.order, work.reading.questions, work.order.draws
    measures = list(work.chosen.measures)
    verdicts = _judged(work, out)
    if verdicts is not None and order.judge is not None:
        places = {id(one): i for i, one in enumerate(questions)}
        measures.append(judge_measure(order.judge, verdicts, places))
    work.say("phase", name="measuring")
    answers = {
        side.player: {i: one for i, one in side.answers.items() if i not in work.unasked}
        for side in work.found
        if side.answers
    }
    of_losses = {side.player: side.losses for side in work.found if side.losses is not None}
    names = _sources(work, of_losses)

    def taken(source: str | None) -> list[Taken]:
        found: list[Taken] = []
        if TUNED in of_losses:
            alike = all(side.is_alike for side in work.found)
            found += take_losses(
                of_losses[TUNED], of_losses.get("base"), source, draws, comparable=alike
            )
        wanted = order.wishes.names
        found = [one for one in found if not wanted or one.name in wanted]
        if TUNED in answers:
            made = [take(measure, questions, answers, source, draws) for measure in measures]
            found += [one for one in made if one is not None]
        return found

    finding = Finding(
        out=out,
        model=work.found[0].label if work.found else str(work.sides.tuned.folder),
        base=None if work.sides.base is None else str(work.sides.base.folder),
        data=order.data,
        rows=len(of_losses[TUNED].by_row) if TUNED in of_losses else work.reading.rows,
        questions=len(answers.get(TUNED, {})),
        taken=taken(None) if order.data else [],
        by_source={name: taken(name) for name in names} if len(names) > 1 else {},
        samples=samples(measures, questions, answers, of_losses),
        row_losses={
            name: [total / weight for total, weight in one.by_row.values()]
            for name, one in of_losses.items()
        },
        left_out=work.chosen.left_out,
        notices=tuple(dict.fromkeys(notices)),
        sampling=order.sampling,
        draws=draws,
        tasks=tasks,
        speeds={
            side.player: sum(one.tokens for one in side.answers.values()) / side.seconds
            for side in work.found
            if side.seconds
        },
        seconds=time.monotonic() - began,
    )
    return finding, None if verdicts is None else verdicts.end


def _sources(work: _Work, of_losses: dict[str, Losses]) -> list[str]:
    told = [question.source for question in work.reading.questions]
    if TUNED in of_losses:
        told += of_losses[TUNED].source_of.values()
    return list(dict.fromkeys(told))


def _free_folder(order: Order, place: Place) -> Path:
    """`evaluations/<model>-<rows>`, with a number where that is taken."""
    data = "+".join(Path(path).stem for path in order.data[:3]) or "+".join(order.tasks[:3])
    name = f"{place.folder.resolve().name}-{data}".replace("/", "-")
    made = _EVALUATIONS / name
    number = 1
    while made.exists():
        number += 1
        made = _EVALUATIONS / f"{name}-{number}"
    return made
