"""The agent recipe of `process`: conversations with tools, step by step. It composes files and steps, and prints nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hone.data.agent.pipeline import STEPS, Pipeline
from hone.data.agent.specification import read_prompts, read_specification
from hone.data.changes import ChangeLedger, ChangeReport
from hone.data.outbox import Outbox
from hone.recipes.change import Places, parsed, raw_rows


def clean_agent_rows(
    places: Places,
    *,
    steps: Sequence[str] = STEPS,
    tools: Path | None = None,
    prompts: Path | None = None,
) -> ChangeReport:
    """Lead the rows of `places.source` (turns of from/value) through the steps, and write what is left.

    `tools` and `prompts` are JSON files; see `data/agent/specification.py`. Raises ConfigError for steps and
    files that do not fit together, DataError for rows that cannot be read or where none is left, DiskError.
    """
    pipeline = Pipeline(
        steps,
        specification=None if tools is None else read_specification(tools),
        prompts=None if prompts is None else read_prompts(prompts),
    )
    rows = raw_rows(places.source)
    ledger = ChangeLedger(str(places.source))
    report = ChangeReport("process", [ledger], notices=[f"steps: {', '.join(pipeline.steps)}"])
    inputs = [one for one in (places.source, tools, prompts) if one is not None]
    with Outbox(inputs=inputs, force=places.force) as outbox:
        sink = outbox.rows(places.out)
        for raw, fate in rows.fates(ledger):
            value = parsed(raw, fate)
            if value is not None and (cleaned := pipeline.run(value, fate)) is not None:
                sink.add_json(cleaned)
        report.check("see the reasons above; --steps runs some of the steps alone")
        report.written[str(places.out)] = sink.count
        places.finish(report, outbox)
    return report
