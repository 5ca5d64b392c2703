"""Writes `docs/reference/`, or with `--check` says which of its pages are not what the code says now."""

from __future__ import annotations

import sys

from docs_from_code.pages import FOLDER, outdated, write


def main(words: list[str]) -> int:
    """Exit code 1 where `--check` finds a page that must be written again."""
    if words not in ([], ["--check"]):
        print("usage: python -m docs_from_code [--check]", file=sys.stderr)
        return 2
    if not words:
        for name in write():
            print(f"written: {FOLDER.name}/{name}")
        return 0
    stale = outdated()
    for name in stale:
        print(f"not what the code says: {FOLDER.name}/{name}; run `make docs-reference`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
