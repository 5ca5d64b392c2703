"""The kept files of the fuzzer still end as rows or as a DataError, in a process with little time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.prove.fuzzer import CORPUS, corpus

_REPLAY = """
import json, signal, sys
from pathlib import Path
from tests.prove.fuzzer import TEMPLATES, Road, limit_memory
road = Road()
limit_memory()
signal.alarm(60)
print(json.dumps({Path(name).name: [road.fate(Path(name)) for _ in TEMPLATES] for name in sys.argv[1:]}))
"""


def test_the_corpus_is_small():
    assert sum(path.stat().st_size for path in corpus()) < 64 * 1024


def test_every_kept_file_has_its_fate():
    done = subprocess.run(
        [sys.executable, "-c", _REPLAY, *map(str, corpus())],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fates = {name: told[0][:24] for name, told in json.loads(done.stdout).items()}
    want = json.loads((CORPUS / "fates").read_text(encoding="utf-8"))
    assert fates == want  # a fate that changes is looked at, then written here
