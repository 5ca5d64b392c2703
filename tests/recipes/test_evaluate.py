"""`evaluate` end to end on tiny models: the loss of training, base beside tuned, calls, gates, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hone.config.layers import resolve
from hone.errors import ConfigError, DataError, EnvironmentFault, GateMissed, ModelError
from hone.recipes import evaluate as evaluate_module
from hone.recipes.evaluate import Order, evaluate
from hone.recipes.evaluation import choice
from hone.recipes.evaluation.choice import Wishes
from hone.recipes.evaluation.judge import Judge
from hone.recipes.evaluation.report import Finding
from hone.recipes.evaluation.result import Taken
from hone.recipes.train import train
from hone.runs.events import Event
from tests.folders import WORDS, model_folder
from tests.recipes.fake_teacher import FakeTeacher

HERMES = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for c in m.get('tool_calls') or [] %}\n<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{% if tools %}{% endif %}"
)
QUICK = ["train.precision=fp32", "compute.threads=1", "train.batch_size=6"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, rows to train on and others, and a run that learned them."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HONE_CACHE", str(home / "cache"))
        model_folder(home / "model")
        rows(home / "rows.jsonl", 24)
        rows(home / "held.jsonl", 9)
        train(_resolved(home, "run", "train.epochs=15", "train.learning_rate=1e-2"))
    return home


def rows(path: Path, count: int) -> None:
    """Chat rows in which each question has one answer, so that it can be learnt by heart."""
    words = WORDS.split()
    with path.open("w") as file:
        for i in range(count):
            asked, said = (
                f"the {words[i % 3]} {words[7 + i // 3 % 3]}",
                f"{words[3 + i % 3]} {words[10 + i // 3 % 3]}",
            )
            messages = [
                {"role": "system", "content": "the cat and the dog and the bird"},
                {"role": "user", "content": asked},
                {"role": "assistant", "content": said},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


@pytest.fixture(autouse=True)
def _place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(home / "cache"))
    monkeypatch.chdir(tmp_path)


def _resolved(home: Path, out: str, *more: str) -> Any:
    return resolve(
        overrides=[
            f"data.path={home / 'rows.jsonl'}", f"data.validation_path={home / 'held.jsonl'}",
            f"model.name={home / 'model'}", f"output.dir={home / out}", *QUICK, *more,
        ]
    )  # fmt: skip


def order(home: Path, name: str = "run", *data: str, **more: Any) -> Order:
    from hone.infer.completer import Sampling

    rows = tuple(str(home / one) for one in data or ("held.jsonl",))
    return Order(str(home / name), rows, sampling=Sampling(max_tokens=8), **more)


def by_name(finding: Finding) -> dict[str, Taken]:
    return {one.name: one for one in finding.taken}


def last_loss(run: Path) -> float:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [one["loss"] for one in events if one["event"] == "evaluated"][-1]


def test_the_loss_is_that_of_training(home: Path) -> None:
    finding = evaluate(order(home, wishes=Wishes(("loss", "perplexity")), alone=True))
    loss = by_name(finding)["loss"]
    assert loss.tuned.value == pytest.approx(last_loss(home / "run"), abs=1e-6)
    assert by_name(finding)["perplexity"].tuned.value == pytest.approx(math.exp(loss.tuned.value))
    assert (loss.rows, loss.base) == (9, None)


def test_a_base_s_loss_is_that_of_its_own_logits(home: Path) -> None:
    """Each answer's tokens by the plain model, one row at a time."""
    from hone.infer.open import open_model

    renderer = open_model(str(home / "model")).completer.renderer
    model = AutoModelForCausalLM.from_pretrained(home / "model", dtype=torch.float32).eval()
    total = weight = 0.0
    for line in (home / "held.jsonl").read_text().splitlines():
        messages = json.loads(line)["messages"]
        prompt = renderer.prompt(messages[:-1])
        answer = [*renderer.tokenizer.encode(messages[-1]["content"]), 2]  # <|im_end|>
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            chances = model(input_ids=ids).logits[0].log_softmax(-1)
        for place, token in enumerate(answer, start=len(prompt)):
            total -= float(chances[place - 1, token])
            weight += 1
    finding = evaluate(order(home, "model", wishes=Wishes(("loss",))))
    assert by_name(finding)["loss"].tuned.value == pytest.approx(total / weight, rel=1e-5)


def test_what_was_tuned_is_shown_to_be_better(home: Path) -> None:
    heard: list[Event] = []
    finding = evaluate(order(home), listeners=[heard.append])
    found = by_name(finding)
    assert list(found) == [
        "loss", "perplexity", "exact_match", "token_f1", "rouge_l", "chrf",
    ]  # fmt: skip
    assert found["loss"].verdict == "better"
    assert found["loss"].difference.high < 0
    assert found["exact_match"].verdict == "better"
    assert found["exact_match"].difference.low > 0
    assert found["exact_match"].base.value == 0
    told = json.loads((finding.out / "result.json").read_text())
    assert told["measures"]["loss"]["tuned_is"] == "better"
    assert "no reference has four words" in told["left_out"]["bleu"]
    assert told["left_out"]["judge"] == "it needs --judge MODEL"
    assert told["left_out"]["tool_call"] == "no row declares or calls a tool"
    lines = (finding.out / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 9
    sample = json.loads(lines[0])
    assert sample["row"].endswith("held.jsonl:1")
    assert [one["role"] for one in sample["prompt"]] == ["system", "user"]
    assert sample["tuned"]["text"] == sample["reference"]["text"]
    assert "the cat and the dog" not in sample["tuned"]["text"], "the prompt is no part of it"
    assert (finding.out / "report.html").read_text().startswith("<!doctype html>")
    assert finding.out == Path("evaluations/run-held")
    assert heard[-1].name == "result"


def test_what_was_not_tuned_is_not_shown_to_be_better(home: Path) -> None:
    finding = evaluate(order(home, "model", base=str(home / "model")))
    assert {one.verdict for one in finding.taken} == {"not shown"}
    assert {one.difference.value for one in finding.taken} == {0.0}


def test_a_fully_tuned_run_and_a_checkpoint_have_their_base_beside_them(home: Path) -> None:
    train(
        _resolved(home, "full", "tuning.method=full", "train.epochs=1", "train.learning_rate=5e-3")
    )
    base = by_name(evaluate(order(home, wishes=Wishes(("loss",)))))["loss"].base
    checkpoint = sorted((home / "run" / "checkpoints").iterdir())[-1]
    for name in ("full", str(checkpoint)):
        found = by_name(evaluate(order(home, name, wishes=Wishes(("loss", "exact_match")))))
        assert found["loss"].base.value == pytest.approx(base.value, abs=1e-6)
        assert found["loss"].verdict == "better"
    assert last_loss(home / "run") == pytest.approx(found["loss"].tuned.value, abs=1e-6)


def test_several_sources_are_told_apart(home: Path) -> None:
    finding = evaluate(
        order(home, "run", "held.jsonl", "rows.jsonl", wishes=Wishes(("loss", "token_f1")))
    )
    first, second = finding.by_source.values()
    assert [one.rows for one in (first[0], second[0])] == [9, 24]
    whole = by_name(finding)["token_f1"]
    parts = [(one.tuned.value, one.questions) for one in (first[1], second[1])]
    assert whole.tuned.value == pytest.approx(sum(v * n for v, n in parts) / 33)
    alone = by_name(evaluate(order(home, wishes=Wishes(("loss",)))))["loss"]
    assert first[0].tuned.value == pytest.approx(alone.tuned.value, abs=1e-6)


def test_the_same_command_gives_the_same_result(home: Path) -> None:
    one, other = evaluate(order(home)), evaluate(order(home))
    assert other.out == Path("evaluations/run-held-2")
    assert [t.to_json() for t in one.taken] == [t.to_json() for t in other.taken]


def test_rows_are_limited_from_the_beginning(home: Path) -> None:
    finding = evaluate(order(home, limit=4, alone=True))
    assert (finding.rows, finding.questions) == (4, 4)
    assert [one.question.row.rpartition(":")[2] for one in finding.samples] == ["1", "2", "3", "4"]


def test_settings_of_data_hold_and_others_are_refused(home: Path) -> None:
    rows = Path("own.jsonl")
    rows.write_text('{"question": "the red cat", "answer": "one runs"}\nnonsense\n')
    order_ = order(
        home, "run", str(rows.resolve()), alone=True,
        settings=("data.columns.user=question", "data.columns.assistant=answer", "data.bad_rows=drop"),
    )  # fmt: skip
    finding = evaluate(order_)
    assert finding.samples[0].question.reference.text == "one runs"
    with pytest.raises(ConfigError, match=r"train\.epochs has no effect"):
        evaluate(order(home, settings=("train.epochs=3",)))


def tool_rows(path: Path, count: int = 6) -> Path:
    """Agent rows of three answers each: a call, an answer to its result, and a plain one."""
    tool = {
        "type": "function",
        "function": {
            "name": "find",
            "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
        },
    }
    with path.open("w") as file:
        for i in range(count):
            word = ("red", "green", "blue")[i % 3]
            call = {"name": "find", "arguments": json.dumps({"what": word})}
            messages = [
                {"role": "user", "content": f"the {word} cat"},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"id": "call_0001", "type": "function", "function": call}]},
                {"role": "tool", "content": "cat runs", "tool_call_id": "call_0001"},
                {"role": "assistant", "content": f"{word} runs"},
            ]  # fmt: skip
            file.write(json.dumps({"messages": messages, "tools": [tool]}) + "\n")
    return path


@pytest.fixture(scope="module")
def agent(home: Path) -> Path:
    """A run that learned to call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HONE_CACHE", str(home / "cache"))
        template = home / "hermes.jinja"
        template.write_text(HERMES)
        rows = tool_rows(home / "agent.jsonl")
        train(
            resolve(
                overrides=[
                    f"data.path={rows}", f"model.name={home / 'model'}", f"data.template={template}",
                    f"output.dir={home / 'agent'}", *QUICK, "train.epochs=60", "train.learning_rate=1e-2",
                ]
            )
        )  # fmt: skip
    return home / "agent"


def test_every_answer_of_an_agent_s_row_is_a_question(home: Path, agent: Path) -> None:
    from hone.infer.completer import Sampling

    rows = (str(home / "agent.jsonl"),)
    finding = evaluate(Order(str(agent), rows, sampling=Sampling(max_tokens=90)))
    found = by_name(finding)
    assert {"tool_name", "tool_call", "tool_abstain", "exact_match"} <= set(found)
    assert finding.questions == 12
    assert (found["tool_call"].questions, found["exact_match"].questions) == (6, 6)
    assert found["tool_call"].tuned.value == 1
    assert found["tool_call"].verdict == "better"
    assert found["tool_abstain"].tuned.value == 1
    calls = [one for one in finding.samples if one.question.reference.calls]
    assert calls[0].answers["tuned"].calls[0].arguments == {"what": "red"}
    assert calls[0].answers["tuned"].text == ""


def test_calls_that_cannot_be_read_are_left_out_and_said(home: Path) -> None:
    heard: list[Event] = []
    finding = evaluate(order(home, "run", "agent.jsonl", alone=True), listeners=[heard.append])
    assert "tool_call" not in by_name(finding)
    assert "chat template" in finding.left_out["tool_call"]
    assert [
        one for one in heard if one.name == "notice" and "tool_call is left out" in one["message"]
    ]
    with pytest.raises(ConfigError, match="tool_call cannot be taken"):
        evaluate(order(home, "run", "agent.jsonl", wishes=Wishes(("tool_call",))))


def test_rows_without_answers_have_a_loss_at_most(home: Path) -> None:
    rows = Path("texts.jsonl")
    rows.write_text('{"text": "the red cat runs"}\n{"text": "the dog sings"}\n')
    one = order(home, "run", str(rows.resolve()), alone=True)
    heard: list[Event] = []
    finding = evaluate(one, listeners=[heard.append])
    assert list(by_name(finding)) == ["loss", "perplexity"]
    assert "none of 2 rows holds an answer" in finding.left_out["exact_match"]
    assert [e for e in heard if e.name == "notice" and e["code"] == "no-questions"]
    with pytest.raises(DataError, match="no row holds an answer"):
        evaluate(order(home, "run", str(rows.resolve()), wishes=Wishes(("exact_match",))))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no rows|empty"),
        ('{"messages": [{"role": "user", "content": "a"}]}\n', "row|answer|train"),
    ],
)
def test_rows_that_say_nothing_are_refused(home: Path, content: str, said: str) -> None:
    rows = Path("bad.jsonl")
    rows.write_text(content)
    with pytest.raises(DataError, match=said):
        evaluate(order(home, "run", str(rows.resolve())))
    assert not Path("evaluations").exists()


def test_what_is_not_there_is_said_before_anything_is_loaded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_module, "players", lambda _: pytest.fail("loaded"))
    with pytest.raises(ModelError, match=r"cannot fetch nowhere|no such model"):
        evaluate(Order("nowhere", (str(home / "held.jsonl"),)))
    with pytest.raises(DataError):
        evaluate(order(home, "run", "none.jsonl"))
    with pytest.raises(ConfigError, match="nothing to evaluate on"):
        Order(str(home / "run"))
    with pytest.raises(ConfigError, match="named twice"):
        order(home, "run", "held.jsonl", "held.jsonl")
    with pytest.raises(ConfigError, match="no measure 'exact_mach'"):
        Wishes(("exact_mach",))
    with pytest.raises(ConfigError, match="--regex has no effect"):
        Wishes(("loss",), pattern="a")
    with pytest.raises(ConfigError, match="--base and --no-base"):
        evaluate(order(home, base=str(home / "model"), alone=True))
    with pytest.raises(ConfigError, match="not among the measures"):
        order(home, wishes=Wishes(("loss",)), gates=("bleu=3",))


def test_a_gate_fails_after_the_result_is_written(home: Path) -> None:
    shown: list[Finding] = []
    with pytest.raises(GateMissed, match=r"loss is .* above 0\.001"):
        evaluate(order(home, gates=("loss=0.001", "exact_match=0.1")), on_finding=shown.append)
    assert (shown[0].out / "result.json").is_file()
    evaluate(order(home, gates=("loss=9", "exact_match=0.1")))


def test_a_gate_on_what_cannot_be_measured_is_refused_before_the_answers(home: Path) -> None:
    with pytest.raises(ConfigError, match="tool_call: it is not measured"):
        evaluate(order(home, gates=("tool_call=0.5",)))
    assert not Path("evaluations").exists()


def test_a_result_is_not_replaced_unasked(home: Path) -> None:
    only = Wishes(("loss",))
    evaluate(order(home, wishes=only, out=Path("out")))
    with pytest.raises(ConfigError, match="exists already"):
        evaluate(order(home, wishes=only, out=Path("out")))
    evaluate(order(home, wishes=only, out=Path("out"), force=True))


def test_a_judge_beside_the_other_measures(home: Path, teacher: FakeTeacher) -> None:
    def fair(call: Any) -> None:
        said = call.prompt.rpartition("--- ANSWER")[2].partition("--- END")[0].partition("\n")[2]
        wanted = (
            call.prompt.rpartition("--- REFERENCE")[2].partition("--- END")[0].partition("\n")[2]
        )
        call.answer(f"VERDICT: {'PASS' if said == wanted else 'FAIL'}")

    teacher.always = fair
    judge = Judge("j", teacher.url)
    finding = evaluate(order(home, wishes=Wishes(judge=True), judge=judge))
    found = by_name(finding)
    assert found["judge"].tuned == found["exact_match"].tuned
    assert found["judge"].base == found["exact_match"].base
    assert found["judge"].details["unparsed"] == 0


def test_a_judge_that_talks_rubbish_is_counted_and_gates_fail(
    home: Path, teacher: FakeTeacher
) -> None:
    teacher.always = lambda call: call.answer("perhaps")
    shown: list[Finding] = []
    one = order(
        home, wishes=Wishes(judge=True), judge=Judge("j", teacher.url), gates=("judge=0",), limit=3
    )
    with pytest.raises(GateMissed, match="judge has no value"):
        evaluate(one, on_finding=shown.append)
    assert by_name(shown[0])["judge"].details["unparsed"] > 0
    assert any("hold no verdict" in notice for notice in shown[0].notices)


def test_packages_that_are_missing_are_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_is_here", lambda package: package != "sacrebleu")
    finding = evaluate(order(home, limit=2, alone=True))
    assert "chrf" not in by_name(finding)
    assert "rouge_l" in by_name(finding)
    assert "pip install 'hone[evaluate]'" in finding.left_out["chrf"]
    with pytest.raises(EnvironmentFault, match="sacrebleu, not installed"):
        Wishes(("bleu",))


def test_the_harness_is_asked_for_where_it_is_missing(home: Path) -> None:
    import importlib.util

    if importlib.util.find_spec("lm_eval") is not None:
        pytest.skip("lm-eval is installed")
    with pytest.raises(EnvironmentFault, match="lm-evaluation-harness"):
        evaluate(order(home, tasks=("arc_easy",)))


def test_another_model_with_another_tokenizer_is_compared_by_its_answers(home: Path) -> None:
    other = home / "other"
    if not other.exists():
        model_folder(other, seed=3)
        path = other / "tokenizer.json"
        told = json.loads(path.read_text())
        told["model"]["merges"] = told["model"]["merges"][:-3]
        path.write_text(json.dumps(told))
    found = by_name(evaluate(order(home, base=str(other))))
    assert found["loss"].base is not None
    assert found["loss"].difference is None
    assert found["token_f1"].difference is not None


def test_rows_of_another_shape_than_the_run_s_are_read_by_their_own_keys(home: Path) -> None:
    train(_resolved(home, "formed", "data.format=messages", "train.max_steps=1"))
    rows = [
        {"conversations": [{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": "one"}]}
        for n in range(2)
    ]
    (home / "other.json").write_text(json.dumps(rows))
    heard: list[Event] = []
    finding = evaluate(order(home, "formed", "other.json"), listeners=[heard.append])
    assert finding.questions == 2
    assert any(one.name == "notice" and one["code"] == "other-shape" for one in heard)
    assert {one.verdict for one in finding.taken} == {"too few rows"}
