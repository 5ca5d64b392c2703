"""Numbers of events by name, as callbacks and trackers get them."""

from __future__ import annotations

import pytest

from hone.runs.metrics import loss_by_source, metrics_of, tracker_name

STEP = {
    "step": 3,
    "loss": 1.5,
    "grad_norm": None,
    "learning_rate": 1e-4,
    "epoch": 0.5,
    "tokens": 1000,
    "trained_tokens": 200,
    "computed_tokens": 600,
    "seconds": 2.0,
    "peak_memory_bytes": 2**30,
    "utilisation": 0.4,
    "sources": {"a/b": {"loss": 2.0, "weight": 50.0}, "c": {"loss": 1.0, "weight": 50.0}},
}


def test_a_step_has_three_speeds_and_a_loss_for_each_source() -> None:
    assert metrics_of("step", STEP) == {
        "loss": 1.5,
        "learning_rate": 1e-4,
        "epoch": 0.5,
        "utilisation": 0.4,
        "peak_memory_bytes": 2**30,
        "tokens_per_second": 500.0,
        "trained_tokens_per_second": 100.0,
        "computed_tokens_per_second": 300.0,
        "loss/a/b": 2.0,
        "loss/c": 1.0,
    }


def test_an_evaluation_has_names_of_its_own_and_other_events_have_none() -> None:
    fields = {"step": 3, "loss": 1.5, "sources": {"c": {"loss": 1.0, "weight": 2.0}}}
    assert metrics_of("evaluated", fields) == {"eval_loss": 1.5, "eval_loss/c": 1.0}
    assert metrics_of("evaluated", {"step": 1, "loss": None}) == {}
    assert metrics_of("saved", {"step": 3, "loss": 1.5}) == {}


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("loss", "train/loss"),
        ("loss/code", "train/loss/code"),
        ("eval_loss", "eval/loss"),
        ("eval_loss/code", "eval/loss/code"),
        ("tokens_per_second", "speed/tokens_per_second"),
        ("utilisation", "speed/utilisation"),
    ],
)
def test_trackers_group_them(metric: str, name: str) -> None:
    assert tracker_name(metric) == name


def test_the_loss_of_a_source_over_steps_is_weighted() -> None:
    steps = [
        {"sources": {"a": {"loss": 1.0, "weight": 1.0}, "b": {"loss": 5.0, "weight": 1.0}}},
        {"sources": {"a": {"loss": 3.0, "weight": 3.0}}},
        {"loss": 9.0},
    ]
    assert loss_by_source(steps) == {"a": 2.5, "b": 5.0}
    assert loss_by_source([{"loss": 1.0}]) == {}
