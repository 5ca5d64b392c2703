"""Starting from an existing adapter: its own settings take the place of `tuning.lora`. It loads no weights."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from hone.config.layers import DEFAULT, Resolved
from hone.config.sections import LoraSection, ModelSection
from hone.errors import ConfigError, ModelError
from hone.models.saved_adapter import CONFIG, WEIGHTS, read_adapter, settings_of
from hone.models.source import find_model


def continued(resolved: Resolved) -> Resolved:
    """`resolved` with the settings of `model.adapter` in force, where one is named, and its base where none is.

    Raises ConfigError where a setting that was said is another than the adapter's, ModelError where the adapter
    cannot be trained further.
    """
    config = resolved.config
    if config.model.adapter is None:
        return resolved
    folder = adapter_folder(config.model)
    about = read_adapter(folder)
    try:
        lora = LoraSection.model_validate(settings_of(about))
    except ValueError as error:
        raise ModelError(
            f"a setting of the adapter is out of bounds: {str(error).splitlines()[0]}",
            where=str(folder / CONFIG),
            remedy="merge it into its base first, and name that as model.name",
        ) from error
    _refuse_contradictions(resolved, lora, folder)
    name = config.model.name or _base_name(folder, about)
    model = config.model.model_copy(update={"name": name})
    tuning = config.tuning.model_copy(update={"lora": lora})
    return replace(resolved, config=config.model_copy(update={"model": model, "tuning": tuning}))


def adapter_folder(section: ModelSection) -> Path:
    """The folder of `model.adapter`; a hub id is downloaded."""
    return find_model(ModelSection(name=section.adapter or ""))


def adapter_hash(folder: Path) -> str:
    """sha256 over the adapter's config and weights."""
    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    with (folder / WEIGHTS).open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _base_name(folder: Path, about: dict[str, Any]) -> str:
    """What the adapter calls its base; a folder of that name inside its own comes after one elsewhere."""
    named = str(about["base_model_name_or_path"])
    inside = folder / named
    return str(inside) if not Path(named).expanduser().is_dir() and inside.is_dir() else named


def _refuse_contradictions(resolved: Resolved, theirs: LoraSection, folder: Path) -> None:
    ours = resolved.config.tuning.lora
    other = [
        f"tuning.lora.{key}={_shown(getattr(ours, key))} ({origin}), and the adapter has {_shown(value)}"
        for key, value in theirs
        if (origin := resolved.origins.get(f"tuning.lora.{key}", DEFAULT)) != DEFAULT
        and _shown(getattr(ours, key)) != _shown(value)
    ]
    if other:
        raise ConfigError(
            "an adapter keeps the settings that it began with:\n  " + "\n  ".join(other),
            where=str(folder / CONFIG),
            remedy="remove these settings, or begin a new adapter without model.adapter",
        )


def _shown(value: object) -> str:
    return str(sorted(map(str, value))) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownArgumentType]
