"""Which files a split of a dataset consists of, as the hub and `datasets` see it. It reads no rows.

The package datasets is asked for names alone: its own readers guess types, and a text that looks like a date would not
stay what it is. What a dataset's card asks of those readers, and ours do not do, is refused.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from typing import Any, Final, NoReturn, cast

from hone.data.importers.formats import KNOWN
from hone.data.importers.packages import load_datasets
from hone.errors import ConfigError, DataError, nearest

# Options of the readers in `datasets` that change which rows a file holds.
_OPTIONS: Final = (
    "column_names", "columns", "delimiter", "encoding", "escapechar", "field", "filters", "header",
    "names", "quotechar", "sep", "skipfooter", "skiprows",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Chosen:
    """One split: its names, and its files in order as paths or `hf://` addresses."""

    split: str
    subset: str
    files: tuple[str, ...]


def split_files(
    place: str,
    *,
    split: str | None,
    subset: str | None,
    prefer: str,
    revision: str | None = None,
    token: str | None = None,
) -> Chosen:
    """The files of a split of a local folder or a hub id; the split `prefer` where none is named.

    Raises ConfigError for a split or subset that is not there, with those that are; DataError where
    there are no files of rows; EnvironmentFault where datasets is absent. What the hub raises passes.
    """
    datasets = load_datasets(f"{place}: a dataset of several files")
    with tempfile.TemporaryDirectory() as folder:  # datasets leaves a lock there
        try:
            builder: Any = datasets.load_dataset_builder(
                place, name=subset, revision=revision, token=token, cache_dir=folder
            )
        except ValueError as fault:
            _refuse_subset(datasets, fault, place, subset, revision, token)
        except (datasets.exceptions.DataFilesNotFoundError, _empty(datasets)) as fault:
            raise DataError(
                f"there are no files of rows in this {'dataset' if revision else 'directory'}",
                where=place,
                remedy=f"endings that are read: {', '.join(sorted(KNOWN))}",
            ) from fault
        config: Any = builder.config
        listed = {
            str(name): [str(one) for one in files] for name, files in config.data_files.items()
        }
    chosen = choose_split(split, list(listed), where=place, prefer=prefer)
    files = listed[chosen]
    _check_options(config, files, place)
    strange = [one for one in files if not one.lower().endswith(tuple(KNOWN))]
    if strange or not files:
        raise DataError(
            f"the split {chosen!r} consists of files that are not read"
            if files
            else f"the split {chosen!r} has no files",
            where=strange[0] if strange else place,
            remedy=f"unpack or convert them; endings that are read: {', '.join(sorted(KNOWN))}",
        )
    return Chosen(chosen, str(config.name), tuple(files))


def choose_split(split: str | None, names: Sequence[str], *, where: str, prefer: str) -> str:
    """`split` if it is there; where none is named, `prefer`. Raises ConfigError with the names there are."""
    if split is None and prefer in names:
        return prefer
    if split is not None and split in names:
        return split
    if split is None:
        raise ConfigError(
            f"there is no split {prefer!r} to be taken by itself",
            where=where,
            remedy=f"say which: data.split=NAME, one of: {', '.join(names)}",
        )
    if "[" in split or "+" in split:
        raise ConfigError(
            f"data.split names one whole split, not {split!r}",
            where=where,
            remedy=f"data.max_rows takes the beginning; splits: {', '.join(names)}",
        )
    raise ConfigError(f"no split {split!r}", where=where, remedy=nearest(split, names))


def refuse_split_of_one(split: str, where: str, own: str | None = None) -> NoReturn:
    """Raise ConfigError: a split was named where there is but one body of rows."""
    only = f" but {own!r}" if own else "s"
    raise ConfigError(
        f"no split {split!r}: there are no split{only} here",
        where=where,
        remedy="remove data.split; it chooses among the splits of a folder or a hub dataset",
    )


def _refuse_subset(
    datasets: Any,
    fault: ValueError,
    place: str,
    subset: str | None,
    revision: str | None,
    token: str | None,
) -> NoReturn:
    """Raise what a ValueError of the resolution means: a subset missing or unknown, or files without sense."""
    said = (str(fault).strip() or type(fault).__name__).splitlines()[0]
    names: list[str] = []
    if "onfig" in said:
        found: Any = datasets.get_dataset_config_names(place, revision=revision, token=token)
        names = [str(name) for name in cast("list[object]", found)]
    if subset is not None and subset not in names and names:
        raise ConfigError(
            f"no subset {subset!r}", where=place, remedy=nearest(subset, names)
        ) from fault
    if subset is None and len(names) > 1:
        raise ConfigError(
            "there are several subsets and none is named",
            where=place,
            remedy=f"data.subset=NAME, one of: {', '.join(sorted(names))}",
        ) from fault
    raise DataError(
        f"the files of its splits cannot be found: {said}",
        where=place,
        remedy="name one file of it instead, or repair the dataset's card",
    ) from fault


def _check_options(config: Any, files: Sequence[str], place: str) -> None:
    """Refuse a card that asks for another reading of the files than theirs."""
    plain = type(config)()
    for option in _OPTIONS:
        asked = getattr(config, option, None)
        is_tab = option in ("sep", "delimiter") and asked == "\t"
        if asked == getattr(plain, option, None) or (
            is_tab and all(one.lower().endswith((".tsv", ".tab")) for one in files)
        ):
            continue
        raise DataError(
            f"the dataset's card asks for {option}={asked!r}, which is not done here",
            where=place,
            remedy="name one file of it instead, or convert it to JSONL or Parquet",
        )


def _empty(datasets: Any) -> type[Exception]:
    return cast("type[Exception]", datasets.data_files.EmptyDatasetError)
