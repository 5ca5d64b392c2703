"""`hone template`: what it prints, and that its exit code tells a script whether something is broken."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import pytest

from hone.cli.main import run
from hone.config.sections import Config, DataSection, ModelSection
from hone.recipes.template import check_template
from tests.data.small import CHATML, byte_level


@pytest.fixture
def model(tmp_path):
    return folder(tmp_path / "model", CHATML)


def folder(path, template):
    path.mkdir()
    byte_level().save(str(path / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>"} | ({"chat_template": template} if template else {})
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def hone(*words):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(["template", *map(str, words)])
    return code, out.getvalue(), err.getvalue()


def test_check_says_each_property_in_a_line(model):
    code, out, _ = hone("check", model)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"{model}: the model's own"
    assert lines[1].split()[:2] == ["ok", "plain"]
    assert lines[-1] == "nothing is broken; what is not right is handled as said"


def test_check_exits_with_3_where_something_is_broken(model, tmp_path):
    path = tmp_path / "bad.jinja"
    path.write_text(CHATML.replace("assistant\\n' -}}{%- endif", "assistant\\n<go>' -}}{%- endif"))
    code, out, _ = hone("check", model, "--template", path)
    assert code == 3
    assert "BROKEN  plain" in out
    code, out, _ = hone("check", model, "--template", path, "--json")
    assert code == 3
    told = json.loads(out)
    assert told["verdict"] == "broken"
    assert told["template"] == str(path)
    assert {one["verdict"] for one in told["properties"]} == {"ok", "handled", "broken"}


def test_a_chosen_template_is_shown_beside_the_models(model, tmp_path):
    code, out, _ = hone("check", model, "--template", "phi")
    assert code == 0
    assert "handled choice" in out
    assert "model's own: <|>>>im_start|>user\\nWhat" in out
    bare = folder(tmp_path / "bare", None)
    report = check_template(
        Config(model=ModelSection(name=str(bare)), data=DataSection(template="chatml"))
    )
    assert report.properties[0].sentence == "the model has no template of its own"
    assert report.verdict == "ok"


def test_show_marks_control_tokens_and_what_is_trained(model):
    code, out, _ = hone("show", model)
    assert code == 0
    assert CHATML in out
    assert "«<|im_start|>»assistant\n⟦Paris.«<|im_end|>»⟧\n" in out
    assert "── with reasoning" in out


def test_show_in_colour(model, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, out, _ = hone("show", model, "--template", "gemma")
    assert "\x1b[1;32mRome.<end_of_turn>\x1b[0m\x1b[1;32;4m<|im_end|>\x1b[0m" in out
    assert "with tools\x1b[0m: the chat template refused it: the gemma template has no form" in out


def test_show_as_json(model):
    _, out, _ = hone("show", model, "--json")
    told = json.loads(out)
    assert told["source"] == CHATML
    plain = told["conversations"][0]
    assert plain["name"] == "plain"
    trained = "".join(one["text"] for one in plain["examples"][0] if one["trained"])
    assert trained == "Paris.<|im_end|>Rome.<|im_end|>"
    controls = {one["text"] for one in plain["examples"][0] if one["control"]}
    assert controls == {"<|im_start|>", "<|im_end|>"}


def test_variables_reach_the_template(tmp_path):
    path = folder(tmp_path / "m", CHATML.replace("{%- if add", "{{- mood -}}{%- if add"))
    _, out, _ = hone("show", path, "data.template_kwargs={mood: merry}")
    assert out.count("merry") > 4


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["check"], 2, "Missing argument"),
        (["check", "no/such/folder"], 4, "no such model folder"),
        (["check", "MODEL", "--template", "qwen4"], 2, "did you mean 'qwen"),
        (["check", "MODEL", "rows.jsonl"], 2, "what is 'rows.jsonl'?"),
        (["show", "MODEL", "data.tempalte=chatml"], 2, "data.template"),
    ],
)
def test_mistakes(model, words, code, what):
    found, _, err = hone(*(model if word == "MODEL" else word for word in words))
    assert found == code
    assert what in err
