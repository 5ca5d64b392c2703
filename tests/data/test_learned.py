"""What is learned beside replies: the line end after them, or everything, and each token of a row once."""

from __future__ import annotations

import numpy as np
import pytest

from hone.data.conversation import Conversation, Message
from hone.data.example import Example, Origin
from hone.data.learned import Learned
from hone.data.render import Renderer
from hone.data.template import ChatTemplate, load_template
from hone.data.tokenizer import TextTokenizer
from tests.folders import tokenizer_folder

TALK = Conversation(
    (
        Message("system", "the cat"),
        Message("user", "the red dog"),
        Message("assistant", "one two"),
        Message("user", "the bird"),
        Message("assistant", "three"),
    ),
    Origin("made", 1),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer.load(tokenizer_folder(tmp_path_factory.mktemp("t")))


def learned(tokenizer: TextTokenizer, name: str = "chatml", **how: object) -> list[tuple[str, str]]:
    """Each trained span of the conversation, decoded, and what follows it."""
    template = load_template(tokenizer, choice=name)
    (example,) = Renderer(tokenizer, template, **how).render(TALK)  # type: ignore[arg-type]
    ids = example.input_ids.tolist()
    return [
        (tokenizer.decode(ids[a:b]), tokenizer.decode(ids[b : b + 1]))
        for a, b in example.trained_spans()
    ]


def test_a_reply_ends_with_its_token(tokenizer: TextTokenizer) -> None:
    assert learned(tokenizer) == [("one two<|im_end|>", "\n"), ("three<|im_end|>", "\n")]


def test_separators_are_learned_after_every_reply(tokenizer: TextTokenizer) -> None:
    assert learned(tokenizer, separators=True) == [
        ("one two<|im_end|>\n", "<|im_start|>"),
        ("three<|im_end|>\n", ""),
    ]
    assert learned(tokenizer, "human", separators=True)[0][0].endswith("<|im_end|>\n")


@pytest.mark.parametrize("careful", [True, False])
def test_rows_cast_in_a_mould_learn_the_same(tokenizer: TextTokenizer, careful: bool) -> None:
    template = load_template(tokenizer, choice="chatml")
    renderer = Renderer(tokenizer, template, careful=careful, separators=True)
    first, second = (made.examples[0] for made in renderer.render_all([TALK, TALK]))
    assert first.weight.tolist() == second.weight.tolist()
    plain = Renderer(tokenizer, template).render(TALK)[0]
    assert first.num_trained_tokens == plain.num_trained_tokens + 2


def test_everything_is_learned_but_the_first_token(tokenizer: TextTokenizer) -> None:
    template = load_template(tokenizer, choice="chatml")
    (example,) = Renderer(tokenizer, template, "everything").render(TALK)
    assert example.weight.tolist() == [0.0] + [1.0] * (example.num_tokens - 1)


def test_of_a_row_that_is_split_a_common_beginning_is_learned_once() -> None:
    def example(*ids: int) -> Example:
        return Example(np.array(ids, np.int32), np.zeros(len(ids), np.float32), Origin("made", 1))

    everything = Learned(np.zeros(0, np.int32), everything=True)
    first, second = everything.of([example(1, 2, 3), example(1, 2, 4, 5)])
    assert first.weight.tolist() == [0, 1, 1]
    assert second.weight.tolist() == [0, 0, 1, 1]


def test_a_separator_that_does_not_stand_there_is_not_learned() -> None:
    weight = np.array([0, 1, 0, 0], np.float32)
    row = Example(np.array([7, 8, 9, 9], np.int32), weight, Origin("made", 1))
    (same,) = Learned(np.array([5], np.int32)).of([row])
    assert same.weight.tolist() == weight.tolist()
    (more,) = Learned(np.array([9], np.int32)).of([row])
    assert more.weight.tolist() == [0, 1, 1, 0]
    assert row.weight.tolist() == weight.tolist(), "the row that was given stays as it was"


def test_a_template_without_a_line_end_has_no_separator(tokenizer: TextTokenizer) -> None:
    source = "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    template = ChatTemplate(source, names=tokenizer.special_names)
    plain = Renderer(tokenizer, template).render(TALK)[0]
    (same,) = Renderer(tokenizer, template, separators=True).render(TALK)
    assert same.weight.tolist() == plain.weight.tolist()
