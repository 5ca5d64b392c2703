"""Many replies at once: each the one that it would get alone, with and without its adapter, and the model left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from hone.errors import ConfigError, HoneError
from hone.infer.completer import Sampling
from hone.infer.decoder import plain_model
from hone.infer.local import LocalCompleter
from hone.infer.many import Many
from hone.infer.open import open_model
from tests.folders import WORDS, model_folder

SHORT = Sampling(max_tokens=9)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("many") / "base")


@pytest.fixture(scope="module")
def adapted(base: Path) -> LocalCompleter:
    torch.manual_seed(1)
    folder = base.parent / "adapter"
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return open_model(str(folder)).completer


def prompts(completer: LocalCompleter, count: int) -> list[list[int]]:
    words = WORDS.split()
    asked = [" ".join(words[: 1 + (5 * i) % 17]) + f" {i}" for i in range(count)]
    return [completer.renderer.prompt([{"role": "user", "content": text}]) for text in asked]


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_greedy_replies_are_those_of_one_at_a_time(adapted: LocalCompleter, rows: int) -> None:
    asked = prompts(adapted, 12)
    alone = [adapted.continuations([one], sampling=SHORT)[0] for one in asked]
    with Many(adapted, rows=rows) as many:
        got = many.replies(asked, sampling=SHORT)
    assert [(one.text, one.tokens, one.finish) for one in got] == [
        (one.text, len(one.token_ids), one.finish) for one in alone
    ]
    assert len({one.text for one in got}) > 6, "replies that differ"


def test_the_base_answers_where_the_adapter_is_left_out(
    adapted: LocalCompleter, base: Path
) -> None:
    without = adapted.without_adapter()
    assert without is not None
    asked = prompts(adapted, 4)
    wanted = open_model(str(base)).completer.continuations(asked, sampling=SHORT)
    with Many(without) as many:
        got = many.replies(asked, sampling=SHORT)
    assert [one.text for one in got] == [one.text for one in wanted]
    with Many(adapted) as many:
        assert [one.text for one in many.replies(asked, sampling=SHORT)] != [
            one.text for one in wanted
        ]


def test_a_model_whose_rows_stand_alone(base: Path) -> None:
    completer = open_model(str(base)).completer
    asked = prompts(completer, 3)
    wanted = completer.continuations(asked, sampling=SHORT)
    completer.batches = False
    with Many(completer) as many:
        got = many.replies(asked, sampling=SHORT)
        again = many.replies(asked[:1], sampling=SHORT)
    assert [one.text for one in got] == [one.text for one in wanted]
    assert again == got[:1]


def test_a_seed_repeats_and_each_prompt_draws_its_own(adapted: LocalCompleter) -> None:
    (one,) = prompts(adapted, 1)
    drawn = Sampling(max_tokens=9, temperature=1.0, seed=3)
    with Many(adapted) as many:
        first = many.replies([one, one], sampling=drawn)
        again = many.replies([one, one], sampling=drawn)
    assert first == again
    assert first[0].text != first[1].text


def test_the_model_is_left_as_it_was(adapted: LocalCompleter) -> None:
    model = plain_model(adapted.model)
    before = model.config._attn_implementation
    hooks = sum(len(m._forward_pre_hooks) for m in model.modules())
    with Many(adapted) as many:
        many.replies(prompts(adapted, 2), sampling=SHORT)
    assert model.config._attn_implementation == before
    assert sum(len(m._forward_pre_hooks) for m in model.modules()) == hooks


def test_replies_are_heard_as_they_end(adapted: LocalCompleter) -> None:
    heard: dict[int, str] = {}
    with Many(adapted) as many:
        got = many.replies(
            prompts(adapted, 5), sampling=SHORT, on_reply=lambda i, one: heard.update({i: one.text})
        )
    assert [heard[i] for i in range(5)] == [one.text for one in got]


def test_a_prompt_without_room_is_refused(adapted: LocalCompleter) -> None:
    with Many(adapted) as many, pytest.raises(ConfigError, match="the model takes 256"):
        many.replies([[5] * 256], sampling=SHORT)


def test_a_model_that_fails_is_said_and_the_next_replies_come(
    adapted: LocalCompleter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = prompts(adapted, 3)
    with Many(adapted) as many:
        wanted = many.replies(asked, sampling=SHORT)
        step = many._decoder.step
        monkeypatch.setattr(
            many._decoder, "step", lambda _: (_ for _ in ()).throw(RuntimeError("x"))
        )
        with pytest.raises(HoneError, match="the model failed"):
            many.replies(asked, sampling=SHORT)
        monkeypatch.setattr(many._decoder, "step", step)
        assert many.replies(asked, sampling=SHORT) == wanted
    assert "RuntimeError" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_running(
    adapted: LocalCompleter, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts(adapted, 3)

    def interrupt(_: int, __: object) -> None:
        raise KeyboardInterrupt

    with Many(adapted, rows=1) as many:
        with pytest.raises(KeyboardInterrupt):
            many.replies(asked, sampling=SHORT, on_reply=interrupt)
        assert [one.tokens > 0 for one in many.replies(asked, sampling=SHORT)] == [True] * 3
