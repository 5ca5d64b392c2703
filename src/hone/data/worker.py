"""A preparing process: jobs as lines of JSON on standard input, answers as lines of JSON on standard output.

`python -m hone.data.worker` is started by `hone.data.crew` and by nothing else. The first line is the Order of its
workshop; each further line a job: {"scan": [begin, end], "contents": whether they are hashed} or {"prepare": [places], "folder": where segments go}.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson

from hone.data.workshop import Order, Workshop
from hone.errors import HoneError


def main() -> int:
    """Work until standard input ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    told: dict[str, Any] = orjson.loads(source.readline())
    told["stamp"] = tuple(told["stamp"])
    shop = Workshop(Order(**told))
    for line in source:
        job: dict[str, Any] = orjson.loads(line)
        try:
            answer = _done(shop, job)
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


def _done(shop: Workshop, job: dict[str, Any]) -> dict[str, Any]:
    if "scan" in job:
        return {"part": shop.scan(*job["scan"], contents=job["contents"]).to_json()}
    segment = shop.prepare([(a, b, c, d) for a, b, c, d in job["prepare"]])
    return {"segment": str(segment.save(Path(job["folder"])))}


if __name__ == "__main__":
    sys.exit(main())
