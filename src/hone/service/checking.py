"""Files of rows are checked by the code of `hone validate`; what it finds lies beside them. It knows no HTTP."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Final

from hone.config.sections import DataSection
from hone.data.importers.row_file import RowFile
from hone.data.validation.verdict import Verdict, judge_file
from hone.service.records import StoredFile
from hone.service.store import Store
from hone.service.vault import Vault

_SHOWN: Final = 3
_MOST_ERRORS: Final = 100_000


def check_file(store: Store, vault: Vault, file: StoredFile, most_rows: int | None = None) -> None:
    """Say of an uploaded file whether it can be trained on, and keep what is wrong with it."""
    verdict = judge(vault.path(file.id), file.filename)
    details = None
    if not verdict.is_valid:
        vault.write_errors(
            file.id,
            (json.dumps(one.to_json(), ensure_ascii=False) + "\n" for one in verdict.findings),
        )
        details = _told(verdict, file.id)
    elif most_rows is not None and verdict.rows > most_rows:
        details = f"the file has {verdict.rows:,} rows; a file of this key may have {most_rows:,}"
    store.judge_file(file.id, "error" if details else "processed", verdict.rows, details)


def judge(path: Path, name: str) -> Verdict:
    """The verdict on a file; `name` is what messages call it."""
    return judge_file(
        RowFile(path, name), DataSection(), rules="first", workers=0, keep=_MOST_ERRORS
    )


def _told(verdict: Verdict, file: str) -> str:
    """What is wrong, in a few lines, and where all of it lies."""
    lines: list[str] = []
    for finding in verdict.findings[:_SHOWN]:
        place = f"line {finding.line}" if finding.line else "the file"
        lines.append(f"{place}: {finding.sentence()}")
    more = f"; and {verdict.errors - _SHOWN:,} more" if verdict.errors > _SHOWN else ""
    said = "; ".join(lines)[:1500]
    return f"{verdict.errors:,} error(s) in {verdict.rows:,} rows: {said}{more}. All: GET /v1/files/{file}/x_hone/errors"


def main(words: list[str]) -> int:
    """Check one file: the folder of the service, and the file's id."""
    os.nice(10)  # whoever asks the server something is answered first
    store = Store(Path(words[0]))
    for file in store.unchecked_files(limit=1_000_000):
        if file.id == words[1]:
            check_file(store, Vault(store.root), file, store.limits_of(file.owner).file_rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
