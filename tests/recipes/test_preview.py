"""Preview shows the very arrays that training receives, and nothing that could harm the reader."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser

import pytest

from hone.cli.main import run
from hone.config.sections import Config, DataSection, ModelSection
from hone.data.prepare import prepare
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError, DataError
from hone.recipes.preview import preview
from hone.recipes.preview_page import page
from tests.data.small import CHATML, byte_level

U = {"role": "user", "content": "hi"}
EVIL = "\x1b[31m<script>alert('x')</script>\u202e&amp; <|im_end|>"
ROWS = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            U,
            {"role": "assistant", "content": "Paris, 東京."},
        ]
    },
    {
        "messages": [
            U,
            {"role": "assistant", "content": "one"},
            U,
            {"role": "assistant", "content": "two", "weight": 0.5},
        ]
    },
    {"messages": [U, {"role": "assistant", "content": "nothing", "weight": 0}]},
    {
        "messages": [{"role": "user", "content": EVIL}, {"role": "assistant", "content": EVIL}],
        "id": 7,
    },
    {
        "messages": [
            {"role": "user", "content": "word " * 300},
            {"role": "assistant", "content": "long"},
        ]
    },
]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    byte_level().save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def config(data, model, **section) -> Config:
    return Config(data=DataSection(path=str(data), **section), model=ModelSection(name=str(model)))


def hone(*words: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def test_json_is_what_training_receives(data, model):
    tokenizer = TextTokenizer.load(model)
    prepared = prepare(
        DataSection(path=str(data)),
        tokenizer=tokenizer,
        template=load_template(tokenizer),
        max_length=10**6,
        cache_dir=None,
        say=lambda event, told: None,
    ).train
    wanted = [e for r in range(prepared.num_rows) for e in prepared.examples(r)]
    code, out, _ = hone("preview", data, "--model", model, "--json", "--rows", 10)
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == len(wanted)
    for one, example in zip(found, wanted, strict=True):
        assert set(one) == {"origin", "input_ids", "weight", "tokens", "trained_text"}
        assert one["origin"] == {"file": str(data), "line": example.origin.line}
        assert one["input_ids"] == example.input_ids.tolist()
        assert one["weight"] == example.weight.tolist()
        assert len(one["tokens"]) == len(one["input_ids"])
    assert found[0]["trained_text"] == ["Paris, 東京.<|im_end|>"]
    assert found[1]["trained_text"] == ["one<|im_end|>", "two<|im_end|>"]
    assert "".join(found[1]["tokens"]) == tokenizer.decode(found[1]["input_ids"])
    assert found[2]["trained_text"] == [EVIL + "<|im_end|>"]


def test_json_of_cut_rows_is_cut(data, model):
    _, out, _ = hone(
        "preview",
        data,
        "--model",
        model,
        "--json",
        "--rows",
        10,
        "data.max_length=35",
        "data.too_long=cut",
    )
    lengths = [len(json.loads(line)["input_ids"]) for line in out.splitlines()]
    assert sorted(lengths) == [34, 35]


def test_the_terminal_marks_what_is_trained_without_colour(data, model):
    code, out, _ = hone("preview", data, "--model", model, "--rows", 3)
    assert code == 0
    assert "\x1b" not in out
    assert "⟦Paris, 東京.<|im_end|>⟧" in out
    assert "⟦two<|im_end|>⟧(weight 0.5)" in out
    assert "messages, 3 rows shown, 2 Examples" in out
    assert "rows.jsonl:3: not trained: nothing to train on" in out
    assert "Be brief." in out


def test_colour(data, model, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, out, _ = hone("preview", data, "--model", model, "--rows", 1)
    assert "\x1b[1;32mParis, 東京.\x1b[0m" in out
    assert "⟦" not in out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in hone("preview", data, "--model", model, "--rows", 1)[1]


def test_a_row_cannot_steer_the_terminal(data, model):
    for flags in ([], ["--ids"]):
        _, out, _ = hone("preview", data, "--model", model, "--skip", 3, "--rows", 1, *flags)
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "x1b" in out


def test_long_context_is_left_out_unless_asked_for(data, model):
    _, short, _ = hone("preview", data, "--model", model, "--skip", 4)
    _, whole, _ = hone("preview", data, "--model", model, "--skip", 4, "--full")
    assert re.search(r" … [\d,]+ more … ", short)
    assert whole.count("word") == 300 > short.count("word")


def test_ids(data, model):
    tokenizer = TextTokenizer.load(model)
    _, out, _ = hone("preview", data, "--model", model, "--rows", 1, "--ids")
    line = next(line for line in out.splitlines() if "⟦" in line and "im_end" in line)
    place, token, weight, text = line.split()
    assert (int(token), weight, text) == (tokenizer.eos_id, "1", '⟦"<|im_end|>"⟧')
    assert int(place) == preview(config(data, model)).rows[0].examples[0].trained_spans()[0][1] - 1


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def test_the_page_is_alone_and_safe(data, model, tmp_path):
    path = tmp_path / "page.html"
    code, out, _ = hone("preview", data, "--model", model, "--rows", 5, "--html", path)
    assert (code, out) == (0, f"wrote {path}\n")
    source = path.read_text(encoding="utf-8")
    seen = Page()
    seen.feed(source)
    assert not seen.tags & {"script", "img", "link", "iframe", "object"}
    assert not any(name.startswith("on") or name in ("src", "href") for name in seen.attributes)
    assert "http" not in source.replace("http-equiv", "")
    assert "<script>alert('x')</script>" in seen.text
    assert "\x1b" not in source
    assert "\u202e" not in source
    assert "weight 0.5" in seen.text
    assert "more" in seen.text


def test_a_page_that_cannot_be_written(data, model, tmp_path):
    code, _, err = hone("preview", data, "--model", model, "--html", tmp_path / "no" / "page.html")
    assert code == 4
    assert "cannot write the page" in err


def test_only_what_is_shown_is_read(data, model):
    with data.open("ab") as file:
        file.write(b"not JSON at all\n" * 3)
    assert len(preview(config(data, model), rows=5).rows) == 5
    assert hone("preview", data, "--model", model, "--rows", 5)[0] == 0
    with pytest.raises(DataError):
        preview(config(data, model), rows=6)


def test_cut_and_refused_rows_are_shown_whole(data, model):
    seen = preview(config(data, model, max_length=30, too_long="cut"), rows=1, skip=1)
    (row,) = seen.rows
    assert [run.is_cut for run in seen.runs(row, 0)][-1]
    assert sum(run.stop - run.start for run in seen.runs(row, 0)) == row.uncut[0].num_tokens
    assert (
        sum(r.stop - r.start for r in seen.runs(row, 0) if not r.is_cut)
        == 30
        == row.examples[0].num_tokens
    )
    assert "cut to the limit" in seen.remark(row, row.uncut[0])
    refused = preview(config(data, model, max_length=30), rows=1, skip=1)
    assert "training would refuse it" in refused.remark(refused.rows[0], refused.rows[0].uncut[0])
    assert "cut" in page(seen)


def test_pieces_join_to_the_text(data, model):
    seen = preview(config(data, model), rows=5)
    for row in seen.rows:
        for number, example in enumerate(row.uncut):
            whole = seen.tokenizer.decode(example.input_ids.tolist())
            runs = seen.runs(row, number)
            joined = "".join(p.text for r in runs for p in seen.pieces(example, r.start, r.stop))
            assert joined == whole
            assert "".join(seen.text(example, r.start, r.stop) for r in runs) == whole


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["{data}"], 2, "no model"),
        (["--model", "{model}"], 2, "no rows to show"),
        (["{data}", "--model", "{model}", "data.train_onn=last"], 2, "train_on"),
        (["{model}", "--model", "{model}"], 3, "the folder of a model"),
        (["nothing.jsonl", "--model", "{model}"], 3, "no such file"),
        (["{data}", "--model", "/no/such/model"], 4, "no such model folder"),
        (["{data}", "--model", "{empty}"], 4, "tokenizer.json"),
    ],
)
def test_mistakes(data, model, tmp_path, words, code, what):
    empty = tmp_path / "empty"
    empty.mkdir()
    found, _, err = hone(
        "preview", *(word.format(data=data, model=model, empty=empty) for word in words)
    )
    assert found == code
    assert what in err
    assert "Traceback" not in err


def test_no_data_is_a_config_error(model):
    with pytest.raises(ConfigError):
        preview(Config(model=ModelSection(name=str(model))))


def test_preview_loads_no_torch(data, model):
    code = (
        "import sys; from hone.cli.main import run; "
        f"run(['preview', {str(data)!r}, '--model', {str(model)!r}]); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'peft')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_another_template_than_the_models_is_told(data, model):
    seen = preview(config(data, model, template="gemma"), rows=1)
    assert seen.template == "gemma"
    codes = [code for code, _ in seen.template_notices]
    assert codes == ["template-tokens", "template-mismatch"]
    assert any("model's own: <>>>|im_start|>user" in notice for notice in seen.notices)
    assert preview(config(data, model), rows=1).template_notices == ()


@pytest.mark.parametrize("policy", ["oldest", "share"])
def test_what_each_policy_leaves_is_shown_beside_what_it_takes(tmp_path, model, policy):
    said = [
        {"role": role, "content": f"{role} {n}"} for n in range(4) for role in ("user", "assistant")
    ]
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"messages": said}) + "\n")
    whole = preview(config(path, model)).rows[0].uncut[0]
    seen = preview(config(path, model, max_length=whole.num_tokens - 5, too_long=policy))
    (row,) = seen.rows
    (left,) = row.examples
    runs = seen.runs(row, 0)
    assert sum(run.stop - run.start for run in runs) == whole.num_tokens
    kept = [i for run in runs if not run.is_cut for i in range(run.start, run.stop)]
    assert row.uncut[0].input_ids[kept].tolist() == left.input_ids.tolist()
    remark = seen.remark(row, row.uncut[0])
    assert f"{left.num_tokens:,} tokens, {left.num_trained_tokens:,} trained" in remark
    assert ("oldest turns" if policy == "oldest" else "shared out") in remark
    assert "the length limit shortened 1 row and took" in seen.ledger.sentence()
    assert "cut" in page(seen)
