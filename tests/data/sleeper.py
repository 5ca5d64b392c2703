"""A process of a crew that sleeps, or works, as long as its job says."""

from __future__ import annotations

import sys
import time
from typing import Any

from hone.data.jobs import serve


def do(job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(job.get("sleep", 0.0))
    end = time.monotonic() + job.get("work", 0.0)
    while time.monotonic() < end:
        pass
    return {"did": job}


if __name__ == "__main__":
    sys.exit(serve(lambda order: do))
