"""A training script, written from complete answers. It knows no question and no file system.

What a user said enters a script only as a literal (`literal.py`), so it cannot become code; a key never enters at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from hone.wizard.answers import Answers
from hone.wizard.choices import chosen, serverless_key
from hone.wizard.closing import closing
from hone.wizard.literal import WIDTH, call, laid_out, literal, number

_TITLES: Final = {
    "jsonl": "Supervised fine-tuning on a file of conversations.",
    "inline": "Supervised fine-tuning on the examples below.",
    "distillation": "Distillation: a smaller model learns from the answers of a larger one.",
}
_RUN: Final = """\


if __name__ == "__main__":
    asyncio.run(main())
"""


@dataclass(frozen=True)
class Framework:
    """How the script calls what it uses."""

    prefix: str
    """Before the names of classes."""
    is_art: bool

    def imports(self, answers: Answers, functions: Sequence[str]) -> dict[str, list[str]]:
        """Names by module; a module without names is imported itself."""
        backend = _backend(answers)
        if self.is_art:
            place = "local" if answers.text("backend") == "local" else "serverless.backend"
            found: dict[str, list[str]] = {"art": [], f"art.{place}": [backend]}
            return found | ({"art.utils.sft": list(functions)} if functions else {})
        names = [backend, "TrainableModel", *functions]
        if answers.scenario != "jsonl":
            names.append("Trajectory")
        if answers.scenario == "inline":
            names.append("TrainSFTConfig")
        return {"hone": names}


_HONE: Final = Framework("", is_art=False)
_ART: Final = Framework("art.", is_art=True)


def script(answers: Answers) -> str:
    """The whole script, formatted. `answers` are complete: the flow has no open question."""
    framework = _ART if answers.text("framework") == "art" else _HONE
    parts = [
        f'"""{_TITLES[answers.scenario]}"""\n\n',
        _imports(answers, framework),
        "\nload_dotenv()\n" if answers.scenario == "distillation" else "",
        "\n\n",
        _main(answers, framework),
    ]
    if answers.scenario == "distillation":
        parts += ["\n\n", _teacher(answers, framework)]
    is_serverless = answers.text("backend") == "serverless"
    model = f"{framework.prefix}TrainableModel"
    end = closing(
        model,
        key=serverless_key(answers) if is_serverless else None,
        is_tracked=framework.is_art,
        is_ours=not framework.is_art,
    )
    parts += ["\n\n", end, _RUN]
    return "".join(parts)


def _backend(answers: Answers) -> str:
    return "LocalBackend" if answers.text("backend") == "local" else "ServerlessBackend"


def _imports(answers: Answers, framework: Framework) -> str:
    """Import lines, sorted as ruff sorts them."""
    functions: list[str] = []
    standard = ["asyncio", "json", "shlex"]
    outside: dict[str, list[str]] = {}
    if answers.scenario == "jsonl":
        functions = ["train_sft_from_file"]
    if answers.scenario == "distillation":
        functions = ["create_sft_dataset_iterator"]
        standard.append("os")
        outside = {"dotenv": ["load_dotenv"], "openai": ["AsyncOpenAI"]}
    outside |= framework.imports(answers, functions)
    lines = [f"import {name}\n" for name in sorted(standard)] + ["\n"]
    lines += [f"import {name}\n" for name, names in sorted(outside.items()) if not names]
    lines += [_from(name, names) for name, names in sorted(outside.items()) if names]
    return "".join(lines)


def _from(module: str, names: Sequence[str]) -> str:
    ordered = sorted(names, key=lambda name: (name[0].islower(), name.lower()))
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= WIDTH:
        return line + "\n"
    return f"from {module} import (\n{''.join(f'    {name},{chr(10)}' for name in ordered)})\n"


def _main(answers: Answers, framework: Framework) -> str:
    """The teacher is asked once all that could fail for nothing is done: its answers cost money."""
    asked = ""
    if answers.scenario == "distillation":
        asked = "        trajectories = await ask_teacher()\n"
    model = call(f"{framework.prefix}TrainableModel", _model(answers, framework), indent=2)
    return (
        "async def main() -> None:\n"
        f"    backend = {_backend(answers)}()\n"
        "    try:\n"
        f"        model = {model}\n"
        "        await model.register(backend)\n\n"
        f"{asked}"
        f"{_training(answers, framework)}\n"
        "        await show_usage(model)\n"
        "    finally:\n"
        "        await backend.close()\n"
    )


def _model(answers: Answers, framework: Framework) -> list[str]:
    told = [f"{key}={literal(answers.text(key))}" for key in ("name", "project", "base_model")]
    if answers.text("backend") == "local":
        share = number(answers.number("gpu_memory_utilization"))
        engine = f'{{"gpu_memory_utilization": {share}}}'
        if framework.is_art:
            config = call("art.dev.InternalModelConfig", [f"engine_args={engine}"], indent=3)
        else:
            config = f'{{"engine_args": {engine}}}'
        told.append(f"_internal_config={config}")
    return told


def _training(answers: Answers, framework: Framework) -> str:
    if answers.scenario == "jsonl":
        told = ["model=model", f"file_path={literal(answers.text('data'))}", *_schedule(answers)]
        asked = call("train_sft_from_file", [*told, "verbose=True"], indent=2)
        return f"        await {asked}\n"
    if answers.scenario == "inline":
        told = chosen(answers)
        numbers = [f"learning_rate={number(told.peak_lr)}", f"batch_size={told.batch_size}"]
        config = call(f"{framework.prefix}TrainSFTConfig", numbers, indent=3)
        asked = call(
            "await model.train_sft", ["trajectories", f"config={config}", "verbose=True"], indent=2
        )
        return f"{_examples(answers, framework)}\n        {asked}\n"
    loop = call("create_sft_dataset_iterator", ["trajectories", *_schedule(answers)], indent=2)
    return (
        f"        for chunk in {loop}:\n"
        "            await model.train_sft(chunk.trajectories, chunk.config, verbose=True)\n"
    )


def _schedule(answers: Answers) -> list[str]:
    told = chosen(answers)
    return [
        f"epochs={told.epochs}",
        f"batch_size={told.batch_size}",
        f"peak_lr={number(told.peak_lr)}",
        f"schedule_type={literal(told.schedule_type)}",
        f"warmup_ratio={number(told.warmup_ratio)}",
    ]


def _examples(answers: Answers, framework: Framework) -> str:
    lines = ["        trajectories = [\n"]
    for messages in cast("list[list[dict[str, str]]]", answers.values["examples"]):
        told = [f"messages_and_choices={_messages(messages, indent=4)}"]
        lines.append(f"            {call(f'{framework.prefix}Trajectory', told, indent=3)},\n")
    return "".join([*lines, "        ]\n"])


def _messages(messages: Sequence[dict[str, str]], *, indent: int) -> str:
    """A message in a line, or over several where it would be too wide."""
    inner = "    " * (indent + 1)
    items = [f"{inner}{laid_out(one, indent=indent + 1)},\n" for one in messages]
    return f"[\n{''.join(items)}{'    ' * indent}]"


def _teacher(answers: Answers, framework: Framework) -> str:
    """The function that asks the teacher, and leaves out what nobody should learn."""
    trajectory = f"{framework.prefix}Trajectory"
    client = call(
        "AsyncOpenAI",
        [
            f"api_key=os.environ[{literal(answers.text('teacher_key_env'))}]",
            f"base_url={literal(answers.text('teacher_url'))}",
        ],
        indent=1,
    )
    asked = call(
        "await teacher.chat.completions.create",
        [f"model={literal(answers.text('teacher'))}", "messages=[question]"],
        indent=2,
    )
    return (
        f"async def ask_teacher() -> list[{trajectory}]:\n"
        '    """The teacher\'s answers; a prompt without a whole one is named and left out."""\n'
        f"    teacher = {client}\n"
        f"{_prompts(answers)}\n"
        "    trajectories = []\n"
        "    for prompt in prompts:\n"
        '        question = {"role": "user", "content": prompt}\n'
        f"        completion = {asked}\n"
        "        choice = completion.choices[0]\n"
        '        if choice.finish_reason != "stop" or not choice.message.content:\n'
        '            print(f"left out ({choice.finish_reason}): {prompt}")\n'
        "            continue\n"
        '        answer = {"role": "assistant", "content": choice.message.content}\n'
        f"        trajectories.append({trajectory}(messages_and_choices=[question, answer]))\n"
        "    if not trajectories:\n"
        '        raise SystemExit("the teacher gave no answer to learn from")\n'
        "    return trajectories\n"
    )


def _prompts(answers: Answers) -> str:
    told = answers.values["prompts"]
    if isinstance(told, str):
        opened = call("open", [literal(told.removeprefix("@")), 'encoding="utf-8"'], indent=1)
        return (
            f"    with {opened} as file:\n"
            "        prompts = [line.strip() for line in file if line.strip()]\n"
        )
    items = "".join(f"        {literal(one)},\n" for one in cast("list[str]", told))
    return f"    prompts = [\n{items}    ]\n"
