"""The site: it builds with no broken link, and a page that it shows fetches nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.page import ROOT

pytest.importorskip("zensical", reason="zensical is not installed (pip install 'hone[docs]')")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=folder,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Fetched(HTMLParser):
    """The addresses that a browser fetches by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        is_link = tag == "a" or (tag == "link" and told.get("rel") in ("canonical", "next", "prev"))
        for name in ("src", "srcset", "href", "data", "poster"):
            if told.get(name) and not is_link:
                self.found.append(str(told[name]))


def is_elsewhere(address: str) -> bool:
    return bool(re.match(r"(?:[a-z][a-z0-9+.-]*:)?//", address, re.IGNORECASE))


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    built = sorted((site / "build" / "docs").rglob("*.html"))
    assert len(built) > 15
    for page in built:
        reader = Fetched()
        reader.feed(page.read_text(encoding="utf-8"))
        assert reader.found, page.name
        assert not [one for one in reader.found if is_elsewhere(one)], page.name


def test_styles_and_scripts_fetch_nothing_from_elsewhere(site: Path) -> None:
    styles = sorted((site / "build" / "docs").rglob("*.css"))
    assert styles
    for style in styles:
        text = style.read_text(encoding="utf-8")
        fetched = re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')\s]+)", text)
        assert not [one for one in fetched if is_elsewhere(one)], style.name


def test_a_broken_link_fails(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(site / "docs", folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    with (folder / "docs" / "index.md").open("a") as page:
        page.write("\n[gone](first-hour.md#nowhere)\n")
    done = build(folder)
    assert done.returncode != 0
    assert "anchor does not exist" in done.stdout + done.stderr
