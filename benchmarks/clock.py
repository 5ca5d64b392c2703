"""When each step of a training ended, in wall and CPU seconds, and what it weighed. It knows no trainer."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Clock:
    """Marks at the end of each step; the first step is start-up, the others count."""

    marks: list[tuple[float, float, int]] = field(default_factory=list)
    """Wall seconds, CPU seconds of the process with all its threads, tokens of the step as given."""
    usage: list[tuple[float, int]] = field(default_factory=list)
    """CPU seconds in the system, and pages given by it, until the end of each step."""

    def mark(self, tokens: int) -> None:
        """A step with so many tokens has ended now."""
        self.marks.append((time.perf_counter(), time.process_time(), tokens))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.usage.append((usage.ru_stime, usage.ru_minflt))

    def result(self) -> dict[str, Any]:
        """Rates over all steps but the first."""
        if len(self.marks) < 2:
            raise RuntimeError(f"{len(self.marks)} steps were made; two are needed")
        (wall_0, cpu_0, _), (wall_1, cpu_1, _) = self.marks[0], self.marks[-1]
        tokens = sum(tokens for _, _, tokens in self.marks[1:])
        return {
            "steps": len(self.marks) - 1,
            "tokens": tokens,
            "wall_seconds": wall_1 - wall_0,
            "cpu_seconds": cpu_1 - cpu_0,
            "tokens_per_cpu_second": tokens / (cpu_1 - cpu_0),
            "tokens_per_wall_second": tokens / (wall_1 - wall_0),
            "system_seconds": self.usage[-1][0] - self.usage[0][0],
            "page_faults": self.usage[-1][1] - self.usage[0][1],
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "step_cpu_seconds": [
                round(b[1] - a[1], 4) for a, b in zip(self.marks, self.marks[1:], strict=False)
            ],
        }
