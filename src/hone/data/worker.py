"""A preparing process: jobs as lines of JSON on standard input, answers as lines of JSON on standard output.

`python -m hone.data.worker` is started by `hone.data.crew` and by nothing else. The first line is the Order of its
workshop; each further line a job: {"scan": [begin, end], "contents": whether they are hashed} or {"prepare": [places], "folder": where segments go}.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from hone.data.jobs import serve
from hone.data.workshop import Order, Workshop


def main() -> int:
    """Work until standard input ends."""
    return serve(lambda told: partial(_done, _shop(told)))


def _shop(told: dict[str, Any]) -> Workshop:
    told["stamp"] = tuple(told["stamp"])
    return Workshop(Order(**told))


def _done(shop: Workshop, job: dict[str, Any]) -> dict[str, Any]:
    if "scan" in job:
        return {"part": shop.scan(*job["scan"], contents=job["contents"]).to_json()}
    segment = shop.prepare([(a, b, c, d) for a, b, c, d in job["prepare"]])
    return {"segment": str(segment.save(Path(job["folder"])))}


if __name__ == "__main__":
    sys.exit(main())
