"""A short run as its events tell it, for the screens' tests. It trains nothing."""

from __future__ import annotations

from typing import Any

from hone.runs.events import Event

STEPS = 40


def event(name: str, at: float = 0.0, /, **fields: Any) -> Event:
    return Event(name=name, time=at, fields=fields)


def step(
    number: int, *, steps: int = STEPS, loss: float | None = 1.0, at: float = 0.0, **more: Any
) -> Event:
    return event(
        "step", at, step=number, steps=steps, loss=loss, grad_norm=1.0, learning_rate=1e-4,
        tokens=1000, trained_tokens=250, computed_tokens=400, seconds=0.5,
        peak_memory_bytes=3 * 2**29, epoch=number / 10, utilisation=0.43, **more,
    )  # fmt: skip


def parts(code: float, prose: float) -> dict[str, dict[str, float]]:
    return {"code": {"loss": code, "weight": 1.0}, "prose": {"loss": prose, "weight": 3.0}}


SAMPLES = [
    {"name": "rows.jsonl:7", "prompt": "<|im_start|>user\nthe red cat", "reply": "one\nsings", "wanted": "sings", "finish": "stop"},
    {"name": "", "prompt": "a \x1b[31mred\x1b[0m dog", "reply": "bird " * 90, "wanted": None, "finish": "length"},
]  # fmt: skip


def run() -> list[Event]:
    """Every kind of event that the contract of the log names."""
    events = [
        event("phase", name="reading"),
        event("notice", code="chatml", message="the model has no chat template: ChatML is used"),
        event(
            "data", file="rows.jsonl", shape="messages", rows=90, examples=95, tokens=9000,
            trained_tokens=1800, dropped={"too long": 10}, cut=0,
            summary="messages, 100 rows: read 100 = kept 90 + dropped 10 (too long: 10)",
        ),
        event("started", folder="runs/rows-tiny", command="hone train rows.jsonl"),
        event("phase", name="loading"),
        event(
            "engine", device="NVIDIA X", on=["bf16", "fused adapters"],
            off=[{"what": "compiled layers", "why": "the run is short: about 20 s"}],
        ),
        event("phase", name="rehearsal"),
        event("rehearsed", micro_batch_tokens=4096, reason="what fits", steps=STEPS),
        event("measured", product_flops_per_second=73.4e9, model_flops_per_token=1e6),
        event("tracking", tracker="tensorboard", place="tensorboard --logdir runs/rows-tiny/tracking"),
        event("phase", name="training"),
    ]  # fmt: skip
    for number in range(1, STEPS + 1):
        events.append(step(number, loss=5.0 / number, at=float(number)))
        if number == 20:
            events.append(event("halved", step=20, micro_batch_tokens=2048))
            events.append(
                event(
                    "evaluated",
                    step=20,
                    loss=0.75,
                    rows=10,
                    trained_tokens=99,
                    sources=parts(0.6, 0.8),
                )
            )
            events.append(event("sample", step=20, samples=SAMPLES))
            events.append(event("saved", step=20, path="runs/rows-tiny/checkpoints/step-00000020"))
    events.append(event("phase", name="saving"))
    events.append(
        event(
            "finished", steps=STEPS, loss=0.125, validation_loss=0.75, seconds=185.0,
            path="runs/rows-tiny",
        )
    )  # fmt: skip
    return events
