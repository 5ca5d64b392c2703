"""Tuned models, checkpoints and trainable models answer, each under the name that its owner uses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import openai
import pytest

from hone.service.names import calling, split_calling
from hone.service.records import Model
from hone.service.routes.chat import renamed
from tests.folders import model_folder
from tests.service.served import serving

ASKED: list[Any] = [{"role": "user", "content": "one"}]


def test_models_answer_by_their_names(tmp_path: Path) -> None:
    """A base, and a whole model that a job left; both are passed on to one server, which ends with the service."""
    base = model_folder(tmp_path / "tiny")
    with serving(tmp_path / "service", models={"tiny": str(base)}) as served:
        tuned = "ft:tiny:bob::abcdefgh"
        shutil.copytree(base, served.store.root / "jobs" / "x")
        model = Model(1, tuned, "bob", None, "tiny", "tuned", "jobs/x", 0)
        with served.store.writing() as connection:
            names = ", ".join(vars(model))
            marks = ", ".join("?" * len(vars(model)))
            connection.execute(
                f"INSERT INTO models ({names}) VALUES ({marks})", list(vars(model).values())
            )
        served.store.register_trainable("bob", "proj", "agent", "tiny")
        client = served.client()
        told = {
            name: client.chat.completions.create(
                model=name, messages=ASKED, max_tokens=6, temperature=0
            )
            for name in ("tiny", tuned, "proj/agent@0", "agent")
        }
        assert [one.model for one in told.values()] == list(told)
        assert len({one.choices[0].message.content for one in told.values()}) == 1
        chunks = list(
            client.chat.completions.create(
                model="agent", messages=ASKED, max_tokens=6, temperature=0, stream=True,
                stream_options={"include_usage": True},
            )
        )  # fmt: skip
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == told["tiny"].choices[0].message.content
        assert {chunk.model for chunk in chunks} == {"agent"}
        assert chunks[-1].usage is not None
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="agent", messages=ASKED, temperature=9)
        assert caught.value.param == "temperature"
        (pid,) = served.service.desk.speakers.pids
    assert not Path(f"/proc/{pid}").exists()


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    with serving(tmp_path / "service", models={"gone": str(tmp_path / "gone")}) as served:
        with pytest.raises(openai.InternalServerError) as caught:
            served.client().chat.completions.create(model="gone", messages=ASKED)
        assert (caught.value.status_code, caught.value.code) == (503, "model_unavailable")
        assert str(tmp_path) not in str(caught.value)


def test_only_the_key_of_an_answer_is_renamed() -> None:
    inner = calling("bob", "p", "a")
    assert split_calling(inner) == ("bob", "p", "a")
    answer = f'{{"model": "{inner}", "content": "say \\"model\\": \\"{inner}\\""}}'.encode()
    assert renamed(answer, inner, "a").count(inner.encode()) == 1
