"""A finder of rows with a cache of its own."""

from __future__ import annotations

import pytest

from tests.data.importers.kinds import Finder


@pytest.fixture
def find(tmp_path) -> Finder:
    return Finder(tmp_path / "cache")
