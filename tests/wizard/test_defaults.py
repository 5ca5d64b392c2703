"""How many gradient steps the offered hyperparameters make."""

from __future__ import annotations

from hone.wizard.defaults import gradient_steps


def test_batches_end_with_the_epoch_unless_they_stream_from_a_file() -> None:
    assert gradient_steps("jsonl", 5, 3, 2) == 8
    assert gradient_steps("distillation", 5, 3, 2) == 9
    assert gradient_steps("inline", 5, 1, 1) == 5
