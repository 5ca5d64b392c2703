"""Gates: read strictly, never passed unseen, and the right way round for losses."""

from __future__ import annotations

import pytest

from hone.errors import ConfigError, GateMissed
from hone.recipes.evaluation import gate
from hone.recipes.evaluation.bootstrap import Interval
from hone.recipes.evaluation.result import Taken


def taken(name: str, value: float | None, better: str = "higher") -> Taken:
    return Taken(name, "", better, 1.0, 1, 1, Interval(value, None, None), None, None)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("exact_match", "no METRIC=VALUE"),
        ("exact_mach=0.5", "no measure 'exact_mach'"),
        ("loss=low", "no number"),
        ("loss=nan", "no number"),
    ],
)
def test_what_is_no_gate_is_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        gate.read_gates([word])


def test_the_nearest_name_is_told() -> None:
    with pytest.raises(ConfigError) as told:
        gate.read_gates(["exactmatch=1"])
    assert "did you mean 'exact_match'?" in str(told.value)


def test_one_measure_has_one_gate() -> None:
    with pytest.raises(ConfigError, match="twice"):
        gate.read_gates(["loss=1", "loss=2"])


def test_missed_is_below_or_above_as_the_measure_goes() -> None:
    found = [taken("exact_match", 0.5), taken("loss", 2.0, "lower"), taken("chrf", None)]
    assert gate.missed({"exact_match": 0.5, "loss": 2.0}, found) == []
    assert gate.missed({"exact_match": 0.51}, found) == ["exact_match is 0.5, below 0.51"]
    assert gate.missed({"loss": 1.9}, found) == ["loss is 2, above 1.9"]
    assert gate.missed({"chrf": 1}, found) == ["chrf has no value, and 1 is asked for"]
    assert gate.missed({"judge": 1}, found) == ["judge has no value, and 1 is asked for"]


def test_a_missed_gate_has_a_code_of_its_own() -> None:
    with pytest.raises(GateMissed) as told:
        gate.raise_missed(["loss is 2, above 1.9"], "out")
    assert told.value.exit_code == 9
    gate.raise_missed([], "out")


def test_a_gate_on_what_is_left_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="it needs --judge MODEL"):
        gate.refuse_unmeasured({"judge": 0.5}, {"judge": "it needs --judge MODEL"})
