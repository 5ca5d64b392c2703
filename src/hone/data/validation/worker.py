"""A judging process: jobs {"scan": [begin, end]} in, what was seen of each part out.

`python -m hone.data.validation.worker` is started by `hone.data.crew` and by nothing else. It loads nothing that
judging does not need, because it lives for a second or two.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Final

from hone.data.jobs import serve
from hone.data.validation.judge import Judge
from hone.data.validation.scan import scan_part

PROGRAM: Final = "hone.data.validation.worker"


@dataclass(frozen=True)
class JudgeOrder:
    """What a judging process must know; `keep` is how many findings of a part are wanted, None for all."""

    file: str
    shape: str
    columns: dict[str, str]
    tags: dict[str, str]
    rules: str
    keep: int | None

    def judge(self) -> Judge:
        """Who judges by it."""
        return Judge(self.shape, self.columns, self.tags, self.rules)


def main() -> int:
    """Work until standard input ends."""

    def ready(told: dict[str, Any]) -> Any:
        order = JudgeOrder(**told)
        judge = order.judge()

        def done(job: dict[str, Any]) -> dict[str, Any]:
            begin, end = job["scan"]
            return scan_part(order.file, begin, end, judge, order.keep).to_json()

        return done

    return serve(ready)


if __name__ == "__main__":
    sys.exit(main())
