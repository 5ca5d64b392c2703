"""What tests of recipes share: a teacher that answers as it is told, in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipes.fake_teacher import FakeTeacher, fake_teacher


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTeacher]:
    monkeypatch.chdir(tmp_path)
    with fake_teacher() as made:
        yield made
