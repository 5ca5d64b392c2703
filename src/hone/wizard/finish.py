"""What comes of complete answers: the script in its file, and the project remembered. It asks nothing."""

from __future__ import annotations

from pathlib import Path

from hone.wizard.answers import Answers
from hone.wizard.memory import remember
from hone.wizard.script import script
from hone.wizard.written import write_whole


def write_script(answers: Answers) -> Path:
    """Write the script, and say where. Raises ConfigError where a file came in between, DiskError."""
    path = answers.path(answers.text("script"))
    text = script(answers)
    write_whole(path, text.encode(), replace=answers.text("overwrite") == "yes")
    remember(answers.text("project"))
    return path
