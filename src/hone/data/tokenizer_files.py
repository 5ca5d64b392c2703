"""A tokenizer's files in a folder, as `transformers` reads them: the model's own, and tokens that were added to them.

It knows no model and no run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from hone.data.tokenizer import TextTokenizer
from hone.errors import ModelError

_FILES: Final = (
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


def write_tokenizer(tokenizer: TextTokenizer, folder: Path, *, template: str) -> None:
    """Write the files into `folder`: the tokenizer's own as they are, but for what was added to it, and
    `template` as the only chat template.

    Raises ModelError for a tokenizer that was not loaded from a folder.
    """
    home = tokenizer.folder
    if home is None:
        raise ModelError("this tokenizer has no files", remedy="load it from a folder")
    for name in _FILES:
        if (home / name).is_file():
            shutil.copyfile(home / name, folder / name)
    config = _read(home / "tokenizer_config.json")
    config.pop("chat_template", None)
    if tokenizer.new:
        _extend(tokenizer, folder, config)
    _write(folder / "tokenizer_config.json", config)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _extend(tokenizer: TextTokenizer, folder: Path, config: dict[str, Any]) -> None:
    """Name the new tokens wherever a loader may look for them."""
    source = _read(folder / "tokenizer.json")
    whole: dict[str, Any] = json.loads(tokenizer.backend_json)
    # Ours neither cuts nor pads; what the model's own file says of that stays.
    whole.update({key: source.get(key) for key in ("truncation", "padding")})
    _write(folder / "tokenizer.json", whole)
    listed = folder / "added_tokens.json"
    if listed.is_file():
        _write(listed, _read(listed) | {token.text: token.id for token in tokenizer.new})
    if "added_tokens_decoder" in config:
        flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
        config["added_tokens_decoder"] = config["added_tokens_decoder"] | {
            str(token.id): {"content": token.text, "special": token.special, **flags}
            for token in tokenizer.new
        }


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.is_file() else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
