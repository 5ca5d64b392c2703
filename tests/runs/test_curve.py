"""The curve: what the events say, drawn where it belongs."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.errors import DiskError
from hone.runs.curve import Curve, draw_png, draw_text, read_curve, smoothed
from hone.runs.events import EventLog

FALLING = tuple((step, 3.0 - step / 50) for step in range(1, 101))
HELD_OUT = ((20, 2.9), (60, 2.2), (100, 2.4))


def test_it_is_read_from_events_and_a_step_done_again_counts_once(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        for step, loss in [(1, 3.0), (2, 2.0), (3, 1.5), (2, 2.0), (3, 1.0), (4, math.nan)]:
            log.say("step", step=step, loss=loss)
        log.say("evaluated", step=2, loss=2.5)
        log.say("evaluated", step=4, loss=2.5)
    curve = read_curve(tmp_path / "events.jsonl", title="run")
    assert curve == Curve("run", ((1, 3.0), (2, 2.0), (3, 1.0)), ((2, 2.5), (4, 2.5)))
    assert curve.best == (2, 2.5)


def test_smoothing_keeps_a_level_and_does_not_lag() -> None:
    assert smoothed([(1, 2.0), (2, 2.0), (3, 2.0)]) == [(1, 2.0), (2, 2.0), (3, 2.0)]
    line = [(step, float(step)) for step in range(1, 1001)]
    assert dict(smoothed(line))[500] == pytest.approx(500, abs=1)
    rng = np.random.default_rng(0)
    noisy = [(step, float(value)) for step, value in enumerate(rng.normal(size=1000), 1)]
    assert np.std([loss for _, loss in smoothed(noisy)]) < 0.3
    assert smoothed([]) == []


def test_the_text_falls_from_the_upper_left_to_the_lower_right() -> None:
    lines = draw_text(Curve("my run", FALLING, ()), width=60, height=8).splitlines()
    assert lines[0] == "my run"
    rows = [line.split("│")[1] for line in lines[1:9]]
    assert rows[0].strip()
    assert rows[0].index(rows[0].strip()[0]) == 0
    assert len(rows[-1]) == 60 - 10
    assert "2.9" in lines[1]
    assert "step 1" in lines[10]
    assert lines[10].endswith("100")
    assert max(map(len, lines)) <= 60


def test_held_out_points_and_the_best_are_marked() -> None:
    text = draw_text(Curve("run", FALLING, HELD_OUT), width=60, height=8)
    grid = text.split("step 1")[0]
    assert (grid.count("o"), grid.count("*")) == (2, 1)
    assert "best: 2.2 at step 60" in text


def test_plain_characters_only_where_asked() -> None:
    text = draw_text(Curve("run", FALLING, HELD_OUT), ascii_only=True)
    assert text.isascii()
    assert not draw_text(Curve("run", FALLING, HELD_OUT)).isascii()


@given(
    st.dictionaries(st.integers(1, 10**6), st.floats(-1e6, 1e6), max_size=30),
    st.dictionaries(st.integers(1, 10**6), st.floats(-1e6, 1e6), max_size=5),
    st.integers(1, 200),
    st.integers(1, 30),
    st.booleans(),
)
def test_any_curve_can_be_drawn(
    train: dict[int, float], held_out: dict[int, float], width: int, height: int, plain: bool
) -> None:
    curve = Curve("run", tuple(sorted(train.items())), tuple(sorted(held_out.items())))
    text = draw_text(curve, width=width, height=height, ascii_only=plain)
    assert text.startswith("run"[:width])


@pytest.mark.parametrize(
    ("train", "held_out"), [(FALLING, HELD_OUT), (FALLING[:1], ()), ((), ()), (FALLING, ())]
)
def test_a_picture_with_its_lines_and_its_best_point(
    tmp_path: Path, train: tuple[tuple[int, float], ...], held_out: tuple[tuple[int, float], ...]
) -> None:
    from matplotlib.image import imread

    path = tmp_path / "loss.png"
    path.write_bytes(b"an older one")
    draw_png(Curve("a $title_ of 数 %", train, held_out), path)
    picture = imread(path)
    assert picture.shape[:2] == (540, 960)

    def drawn(color: str) -> int:
        wanted = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return int((np.abs(picture[..., :3] - wanted).max(axis=-1) < 0.02).sum())

    assert (drawn("#a50f15") > 50) == bool(held_out)  # the star
    assert (drawn("#08519c") > 200) == (len(train) > 1)  # the smoothed line
    assert [item.name for item in tmp_path.iterdir()] == ["loss.png"]


def test_sources_are_read_and_drawn_from_held_out_rows_where_there_are_some(tmp_path: Path) -> None:
    from matplotlib.image import imread

    def parts(*losses: float) -> dict[str, object]:
        return {
            n: {"loss": one, "weight": 1.0} for n, one in zip(("a", "_b$c$"), losses, strict=True)
        }

    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        for step in (1, 2, 3):
            log.say("step", step=step, loss=2.0 / step, sources=parts(1.0 / step, 3.0 / step))
    steps = read_curve(path, title="run")
    assert steps.sources[0] == ("a", ((1, 1.0), (2, 0.5), (3, 1.0 / 3)))
    with EventLog(path) as log:
        log.say("evaluated", step=1, loss=2.0, sources=parts(1.5, 2.5))
        log.say("evaluated", step=3, loss=1.0, sources=parts(0.5, 1.5))
    curve = read_curve(path, title="run")
    assert curve.sources == (("a", ((1, 1.5), (3, 0.5))), ("_b$c$", ((1, 2.5), (3, 1.5))))
    draw_png(curve, tmp_path / "loss.png")
    picture = imread(tmp_path / "loss.png")[..., :3]
    for colour in ("#31a354", "#756bb1"):
        wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (np.abs(picture - wanted).max(axis=-1) < 0.02).sum() > 50


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="cannot write the curve"):
        draw_png(Curve("run", FALLING, ()), tmp_path / "absent" / "loss.png")


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = "import sys, hone.runs.curve, hone.runs.folder; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
