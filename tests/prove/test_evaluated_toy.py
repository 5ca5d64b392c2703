"""The quickstart's task at its full size, evaluated as a user would: the tuned model is shown to be better than its base."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.infer.completer import Sampling
from hone.recipes.evaluate import Order, evaluate
from hone.recipes.quickstart import Quickstart


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_the_quickstart_tuned_is_shown_to_be_better_than_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    show = Quickstart(tmp_path / "toy", seed=0)
    show.build()
    files = show.write()
    show.judge_base()
    show.train()
    after = show.judge_tuned()
    order = Order(str(show.run), (str(files["test"]),), sampling=Sampling(max_tokens=64))
    finding = evaluate(order)
    found = {one.name: one for one in finding.taken}
    assert {one.verdict for one in finding.taken} == {"better"}
    assert found["loss"].difference.high < 0
    assert found["exact_match"].difference.low > 0
    assert found["exact_match"].tuned.value == pytest.approx(after.exact_match)
