"""Replies are `generate`'s own, alone or in a batch, streamed or whole, with the adapter or without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from hone.data.render import Renderer
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError
from hone.infer.completer import Sampling
from hone.infer.local import LocalCompleter
from tests.folders import model_folder

SHORT = Sampling(max_tokens=12)


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


CONVERSATIONS = [
    ask("the red cat"),
    ask("a"),
    [
        {"role": "system", "content": "the cat and the dog"},
        *ask("one two three four blue bird sings"),
    ],
    ask("green dog runs and runs and sleeps"),
]


def completer_of(folder: Path, *, stops: tuple[int, ...] = (2,), **options: bool) -> LocalCompleter:
    tokenizer = TextTokenizer.load(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    renderer = Renderer(tokenizer, load_template(tokenizer))
    return LocalCompleter(model, renderer, stop_ids=stops, limit=256, **options)


@pytest.fixture(scope="module", params=["LlamaConfig", "Qwen3Config", "GPT2Config"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    more = {"num_key_value_heads": "unset"} if request.param == "GPT2Config" else {}
    return model_folder(tmp_path_factory.mktemp(request.param), config=request.param, **more)


def test_a_reply_is_what_generate_writes(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for messages in CONVERSATIONS:
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            want = model.generate(**prompt, max_new_tokens=12, do_sample=False, eos_token_id=2)
        width = prompt["input_ids"].shape[1]
        got = completer_of(folder).reply(messages, sampling=SHORT)
        assert list(got.token_ids) == want[0, width:].tolist()
        assert got.prompt_tokens == width
        assert got.text == tokenizer.decode(
            [i for i in got.token_ids if i != 2], clean_up_tokenization_spaces=False
        )


def test_a_batch_answers_as_alone(folder: Path) -> None:
    completer = completer_of(folder)
    alone = [completer.reply(messages, sampling=SHORT) for messages in CONVERSATIONS]
    assert completer.replies(CONVERSATIONS, sampling=SHORT) == alone
    assert completer_of(folder, batches=False).replies(CONVERSATIONS, sampling=SHORT) == alone
    assert completer.replies([]) == []


def test_streamed_pieces_join_to_the_reply(folder: Path) -> None:
    completer = completer_of(folder)
    for messages in CONVERSATIONS:
        heard: list[str] = []
        streamed = completer.reply(messages, sampling=SHORT, on_text=heard.append)
        assert streamed == completer.reply(messages, sampling=SHORT)
        assert "".join(heard) == streamed.text
        assert all(heard)


def test_a_reply_stops_at_its_stop_and_does_not_show_it(folder: Path) -> None:
    whole = completer_of(folder, stops=()).reply(CONVERSATIONS[0], sampling=SHORT)
    assert whole.finish == "length"
    assert len(whole.token_ids) == 12
    stop = whole.token_ids[4]
    first = whole.token_ids.index(stop)
    heard: list[str] = []
    completer = completer_of(folder, stops=(stop,))
    cut = completer.reply(CONVERSATIONS[0], sampling=SHORT, on_text=heard.append)
    assert cut.token_ids == whole.token_ids[: first + 1]
    assert cut.finish == "stop"
    assert whole.text.startswith(cut.text)
    assert "".join(heard) == cut.text
    assert completer.replies(CONVERSATIONS, sampling=SHORT)[0] == cut


def test_the_models_own_sampling_settings_are_not_in_force(folder: Path) -> None:
    completer = completer_of(folder)
    before = completer.reply(CONVERSATIONS[0], sampling=SHORT)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.repetition_penalty = 9.0
    model.generation_config.temperature = 5.0
    model.generation_config.do_sample = True
    other = LocalCompleter(model, completer.renderer, stop_ids=(2,))
    assert other.reply(CONVERSATIONS[0], sampling=SHORT) == before


def test_a_seed_makes_drawing_repeatable_and_leaves_the_process_alone(folder: Path) -> None:
    completer = completer_of(folder)
    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    drawn = [
        completer.reply(
            CONVERSATIONS[0], sampling=Sampling(max_tokens=12, temperature=3.0, seed=seed)
        ).token_ids
        for seed in (1, 1, 2, 3)
    ]
    assert torch.equal(torch.rand(1), want)
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_a_reply_ends_at_the_models_limit_and_a_prompt_beyond_it_is_refused(folder: Path) -> None:
    completer = completer_of(folder, stops=())
    prompt = completer.renderer.prompt(CONVERSATIONS[0])
    completer.limit = len(prompt) + 3
    assert len(completer.reply(CONVERSATIONS[0], sampling=SHORT).token_ids) == 3
    completer.limit = len(prompt)
    with pytest.raises(ConfigError, match="takes"):
        completer.reply(CONVERSATIONS[0], sampling=SHORT)


def test_the_base_answers_beside_its_adapter_from_the_same_weights(folder: Path) -> None:
    plain = completer_of(folder)
    want = plain.replies(CONVERSATIONS, sampling=SHORT)
    assert plain.without_adapter() is None
    adapted = get_peft_model(
        plain.model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    )
    assert isinstance(adapted, PeftModel)
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    tuned = LocalCompleter(adapted, plain.renderer, stop_ids=(2,), limit=256)
    base = tuned.without_adapter()
    assert base is not None
    first = tuned.replies(CONVERSATIONS, sampling=SHORT)
    assert first != want
    assert base.replies(CONVERSATIONS, sampling=SHORT) == want
    assert tuned.replies(CONVERSATIONS, sampling=SHORT) == first
    assert base.model is tuned.model


@pytest.mark.parametrize(
    "wrong",
    [{"max_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"temperature": float("nan")}],
)
def test_sampling_that_cannot_be_honoured_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Sampling(**wrong)  # type: ignore[arg-type]
