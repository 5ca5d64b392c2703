"""Evaluating and answering files need no extra of the installation; what does is asked for by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules.update(dict.fromkeys({names!r})); import {module}"
EXTRAS = ("fastapi", "gguf", "jsonschema", "llguidance", "rouge_score", "sacrebleu", "starlette", "uvicorn")  # fmt: skip


@pytest.mark.parametrize("module", ["hone.recipes.evaluate", "hone.recipes.infer"])
def test_it_is_imported_without_any_extra(module: str) -> None:
    code = WITHOUT.format(names=EXTRAS, module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-600:]


def test_a_form_without_the_library_that_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from hone.errors import EnvironmentFault
    from hone.infer.grammar import check_schema

    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(EnvironmentFault, match="llguidance") as caught:
        check_schema({"type": "object"})
    assert "hone[service]" in str(caught.value.remedy)
