"""The `hone` command: finds the verb, runs it, and turns what it raises into words and an exit code.

It knows the names of the verbs and where they live, not what they do: a verb's module is imported only
when that verb was typed, so that `hone --help` loads neither pydantic nor torch nor rich.
"""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

from hone import __version__
from hone.cli.printable import printable
from hone.cli.streams import QuietOutput, silence
from hone.errors import DiskError, HoneError, OutOfMemory, Stopped

_DISK_ERRORS = {
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS,
}  # fmt: skip


@dataclass(frozen=True)
class Verb:
    """A command: its name, where its function lies (`module:attribute`), and one line about it."""

    name: str
    place: str
    summary: str
    is_group: bool = False

    def load(self) -> Any:
        """The function, or the group of functions, behind this verb."""
        module, attribute = self.place.split(":")
        return getattr(importlib.import_module(module), attribute)


VERBS = (
    Verb("quickstart", "hone.cli.quickstart:quickstart", "See a model learn a task on this CPU."),
    Verb("new", "hone.cli.new:new", "Make a folder for a project: Makefile, configs, workflows."),
    Verb("wizard", "hone.cli.wizard:wizard", "Answer a few questions, get a training script."),
    Verb("train", "hone.cli.train:train", "Train a model on your rows; the same command resumes."),
    Verb("plan", "hone.cli.plan:plan", "Say what a run will take: memory, steps, time, disk."),
    Verb("preview", "hone.cli.preview:preview", "Show rows token by token: trained and context."),
    Verb(
        "validate",
        "hone.cli.validate:validate",
        "Say what is wrong with rows; survey and repair them.",
    ),
    Verb("convert", "hone.cli.convert:convert", "Write rows in another shape."),
    Verb("split", "hone.cli.split:split", "Split rows into train, val and test, by what they say."),
    Verb("style", "hone.cli.style:style", "Put a style before the system text of rows."),
    Verb("process", "hone.cli.process:process", "Make raw rows ready for training."),
    Verb("documents", "hone.cli.documents:documents", "Cut documents into rows of plain text."),
    Verb("distill", "hone.cli.distill:distill", "Have a teacher answer prompts: rows to train on."),
    Verb("template", "hone.cli.template:app", "Show and check a chat template.", is_group=True),
    Verb("chat", "hone.cli.chat:chat", "Talk to a run or a model."),
    Verb("evaluate", "hone.cli.evaluate:evaluate", "Measure a model's answers, its base beside."),
    Verb("infer", "hone.cli.infer:infer", "Answer a file of prompts, or talk."),
    Verb("serve", "hone.cli.serve:serve", "Serve runs and models to OpenAI clients."),
    Verb(
        "service",
        "hone.cli.service:app",
        "Serve fine-tuning jobs to OpenAI clients; make keys.",
        is_group=True,
    ),
    Verb("jobs", "hone.cli.jobs:app", "Jobs of a training service: create, watch.", is_group=True),
    Verb("merge", "hone.cli.merge:merge", "Merge an adapter into its unquantised base."),
    Verb(
        "export",
        "hone.cli.export:export",
        "Write a model for other programs: GGUF, Ollama, the hub.",
    ),
    Verb("push", "hone.cli.push:push", "Publish a model on the hub, after asking."),
    Verb("runs", "hone.cli.runs:app", "List, show and compare runs.", is_group=True),
    Verb(
        "tensorboard",
        "hone.cli.tensorboard:app",
        "Start and stop TensorBoard over runs.",
        is_group=True,
    ),
    Verb("cache", "hone.cli.cache:app", "List and prune what can be made again.", is_group=True),
    Verb("doctor", "hone.cli.doctor:doctor", "Look at this machine: what helps, what hinders."),
    Verb(
        "config", "hone.cli.config:app", "Show the configuration; convert others'.", is_group=True
    ),
    Verb("schema", "hone.cli.config:schema", "Print the JSON Schema of the configuration."),
    Verb("skills", "hone.cli.skills:app", "Teach coding assistants to use Hone.", is_group=True),
    Verb("help", "hone.cli.topics:show", "Explain a topic: exit-codes, settings, environment."),
)


def main() -> int:
    """Entry point of the `hone` script; returns the exit code."""
    # Threads that wait for each other sleep instead of spinning: on a machine that others use as well, a
    # step is 3 times faster (measured 2026-11-20, 2 cores, load 4). Read once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a narrow locale must not end a command
    return run(sys.argv[1:])


def run(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    as_json = "--json" in arguments
    try:
        code = _dispatch(list(arguments))
        sys.stdout.flush()
        return code
    except HoneError as error:
        return _report(error, error.exit_code, as_json=as_json)
    except TyperException as error:
        usage = HoneError(error.format_message(), remedy=_usage_remedy(error, arguments))
        return _report(usage, 2, as_json=as_json)
    except (KeyboardInterrupt, Abort):
        return 130
    except (BrokenPipeError, SystemExit):  # the parser leaves by SystemExit when a pipe was closed
        silence(sys.stdout)
        return 1
    except Exception as error:  # noqa: BLE001 - the last wall: a user never sees a traceback
        known = _known_fault(error)
        return _report(known, known.exit_code, as_json=as_json)


def _dispatch(arguments: list[str]) -> int:
    asked = next((word for word in arguments if not word.startswith("-")), None)
    app = typer.Typer(
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,  # plain help: loading rich costs more than all the rest of a start
        help="Teach a language model by example, and see what is trained.",
        epilog="First time here: `hone quickstart`. Exit codes: `hone help exit-codes`.",
    )
    app.callback()(_root)
    for verb in VERBS:
        if verb.name != asked:
            app.command(verb.name, help=verb.summary)(_not_loaded)
        elif verb.is_group:
            app.add_typer(verb.load(), name=verb.name, help=verb.summary)
        else:
            app.command(verb.name)(verb.load())
    command = typer.main.get_command(app)
    code: object = command.main(
        arguments or ["--help"], prog_name="hone", standalone_mode=False, obj=arguments
    )
    return code if isinstance(code, int) else 0


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hone {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """What may stand before a verb."""


def _not_loaded() -> None:
    """Stands in for a verb that was not typed, so that help can list it."""


def _usage_remedy(error: TyperException, arguments: Sequence[str]) -> str:
    """The help that is closest to what was typed, and the setting that an unknown option may mean."""
    asked = next((word for word in arguments if not word.startswith("-")), None)
    command = f"hone {asked}" if asked in {verb.name for verb in VERBS} else "hone"
    remedy = f"`{command} --help` shows what is allowed"
    unknown = re.match(r"No such option: --([\w.-]+)$", error.format_message())
    if asked not in ("plan", "train") or unknown is None:
        return remedy
    from hone.config.fields import declined, nearest_name, settings

    instead = declined(unknown[1])
    if instead is not None:
        return instead
    near = nearest_name(unknown[1].replace("-", "_"))
    return f"a setting is written {near}=VALUE; {remedy}" if near in settings() else remedy


def _report(error: HoneError, code: int, *, as_json: bool) -> int:
    """Say what went wrong: words on stderr, and with `--json` one object on stdout as well.

    Where nobody reads any more (a closed pipe, a terminal that went), the code still tells.
    """
    head = "stopped" if isinstance(error, Stopped) else "error"
    QuietOutput(sys.stderr).write_line(printable(f"{head}: {error}"))
    if as_json:
        said = {"event": "error", "time": time.time(), "exit_code": code}
        said |= {"kind": type(error).__name__, "what": error.what}
        said |= {"where": error.where, "remedy": error.remedy}
        QuietOutput(sys.stdout).write_line(json.dumps(said))
    return code


def _known_fault(error: Exception) -> HoneError:
    """Our words for an exception that no room has translated."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return DiskError(
            error.strerror or str(error),
            where=None if error.filename is None else str(error.filename),
            remedy="free some space, or choose another folder with --output",
        )
    if isinstance(error, MemoryError):
        return OutOfMemory("this machine has no memory left", remedy="use a smaller model")
    trace = "".join(traceback.format_exception(error))
    what = f"unexpected {type(error).__name__}: {error}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="hone-trace-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(f"hone {__version__}, python {sys.version}\n{trace}")
    except OSError:
        return HoneError(f"{what}\n{trace}", remedy="this is a fault of Hone; please report it")
    return HoneError(
        what,
        where=f"the full trace is in {file.name}",
        remedy="this is a fault of Hone; please report it with that file",
    )
