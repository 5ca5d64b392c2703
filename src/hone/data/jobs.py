"""The end of a pipe at which a process does jobs: lines of JSON in, lines of JSON out. It knows no job.

The first line says what the process must know; each further line is a job, and is answered by one line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import orjson

from hone.errors import HoneError

Told = dict[str, Any]


def serve(ready: Callable[[Told], Callable[[Told], Told]]) -> int:
    """Do jobs until standard input ends. `ready` makes of the first line what does each of them."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    done = ready(orjson.loads(source.readline()))
    for line in source:
        job: Told = orjson.loads(line)
        try:
            answer = done(job)
        except HoneError as error:
            answer = {
                "error": type(error).__name__,
                "what": error.what,
                "where": error.where,
                "remedy": error.remedy,
            }
        sink.write(orjson.dumps(answer) + b"\n")
        sink.flush()
    return 0
