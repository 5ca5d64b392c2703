"""Datasets of the hub: which files a split consists of, fetched whole or read over the network. It reads no rows.

What was found is kept as a small record, so that the same name can be answered without a network.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from hone.data.importers.formats import KNOWN
from hone.data.importers.raw_file import RawFile, local_file
from hone.data.importers.splits import split_files
from hone.data.importers.store import key_of, replace_file
from hone.errors import ConfigError, DataError, DiskError, EnvironmentFault, HoneError

_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")
_READ_AHEAD_BYTES: Final = 2**20
_BLOCK_BYTES: Final = 2 * 2**20  # of one request: the beginning of a large file is soon here
_DISK: Final = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO
)  # fmt: skip
_REACH: Final = (
    "there is no file or folder of this name here; for a dataset of the hub, check the network"
)


def is_hub_id(text: str) -> bool:
    """Whether `text` can be the name of a dataset on the hub: org/name, and no file of rows."""
    return _ID.fullmatch(text) is not None and not text.lower().endswith(tuple(KNOWN))


@dataclass(frozen=True)
class HubSplit:
    """One split of a hub dataset at one commit; its files in order, relative to the repository."""

    repo: str
    commit: str
    subset: str
    split: str
    files: tuple[str, ...]
    notices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What messages call its rows."""
        return f"{self.repo}@{self.split}"

    def remote_files(self) -> list[RawFile]:
        """Its files, to be read over the network. Opening one raises EnvironmentFault."""
        return [self._remote(file) for file in self.files]

    def fetched_files(self) -> list[RawFile]:
        """Its files on this machine, fetched unless they are here. Raises EnvironmentFault."""
        import huggingface_hub

        fetched: list[RawFile] = []
        for file in self.files:
            with _hub_faults(self.repo):
                path = huggingface_hub.hf_hub_download(
                    self.repo, file, repo_type="dataset", revision=self.commit, token=_token()
                )
            fetched.append(local_file(Path(path), f"{self.repo}/{file}"))
        return fetched

    def _remote(self, file: str) -> RawFile:
        def opened() -> BinaryIO:
            from huggingface_hub import HfFileSystem

            with _hub_faults(self.repo):
                system: Any = HfFileSystem(token=_token())
                address = f"datasets/{self.repo}@{self.commit}/{file}"
                stream = system.open(address, "rb", block_size=_BLOCK_BYTES)
            return cast(
                "BinaryIO", io.BufferedReader(_Remote(stream, self.repo), _READ_AHEAD_BYTES)
            )

        return RawFile(f"{self.repo}/{file}", opened)


class _Remote(io.RawIOBase):
    """A file of the hub whose network faults are told in our words."""

    def __init__(self, stream: Any, repo: str) -> None:
        self._stream = stream
        self._repo = repo

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _hub_faults(self._repo):
            data: bytes = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        self._stream.close()
        super().close()


def find_hub_split(
    repo: str,
    *,
    split: str | None,
    subset: str | None,
    revision: str | None,
    prefer: str,
    records: Path,
) -> HubSplit:
    """The split of a hub dataset that was asked for, at the commit that its revision names today.

    Without a network (or with HF_HUB_OFFLINE=1) the record of an earlier answer serves, and says so; it
    lies under `records`. Raises DataError where there is no such dataset, ConfigError for a revision,
    subset or split that is not there, EnvironmentFault for one that needs another token or that cannot
    be reached.
    """
    from huggingface_hub import constants

    asked = key_of("hub-split", constants.ENDPOINT, repo, split, subset, revision, prefer)
    record = records / f"{asked}.json"
    try:
        found = _resolve(repo, split, subset, revision, prefer)
    except _UnreachableError as fault:
        kept = _recorded(record) or _fetched_before(repo, split, subset, revision, prefer)
        if kept is None:
            raise EnvironmentFault(fault.what, where=fault.where, remedy=fault.remedy) from fault
        told = (
            f"{repo}: the hub was not asked ({fault.what}); taken as it was at commit {kept.commit}"
        )
        return replace(kept, notices=(told,))
    replace_file(record, json.dumps(asdict(found)).encode())
    return found


def _resolve(
    repo: str, split: str | None, subset: str | None, revision: str | None, prefer: str
) -> HubSplit:
    import huggingface_hub

    with _hub_faults(repo, revision):
        about = huggingface_hub.HfApi(token=_token()).dataset_info(repo, revision=revision)
        commit = about.sha or ""
        chosen = split_files(
            repo, split=split, subset=subset, prefer=prefer, revision=commit, token=_token()
        )
    start = f"hf://datasets/{repo}@{commit}/"
    outside = [one for one in chosen.files if not one.startswith(start) or ".." in one.split("/")]
    if outside:
        raise DataError(
            f"the dataset's card names rows outside of it: {outside[0]}",
            where=repo,
            remedy="name the dataset that holds them",
        )
    files = tuple(one.removeprefix(start) for one in chosen.files)
    return HubSplit(repo, commit, chosen.subset, chosen.split, files)


def _recorded(record: Path) -> HubSplit | None:
    try:
        kept = json.loads(record.read_bytes())
        files = tuple(str(one) for one in kept["files"])
        repo, commit = str(kept["repo"]), str(kept["commit"])
        return HubSplit(repo, commit, str(kept["subset"]), str(kept["split"]), files)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _fetched_before(
    repo: str, split: str | None, subset: str | None, revision: str | None, prefer: str
) -> HubSplit | None:
    """The split as the hub's own cache has it, where another program fetched the whole dataset."""
    import huggingface_hub

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repo, repo_type="dataset", revision=revision, local_files_only=True
            )
        )
    except (OSError, ValueError):
        return None
    chosen = split_files(str(folder), split=split, subset=subset, prefer=prefer)
    files = tuple(str(Path(one).relative_to(folder)) for one in chosen.files)
    return HubSplit(repo, folder.name, chosen.subset, chosen.split, files)


class _UnreachableError(EnvironmentFault):
    """The hub was not asked, or gave no answer."""


@contextmanager
def _hub_faults(repo: str, revision: str | None = None) -> Generator[None]:
    """Turns what the hub's libraries raise into our errors; where the fault lies deeper, that decides."""
    from huggingface_hub import errors

    # A fault of the connection and HfHubHTTPError share a base that stands in another package; in
    # which one, depends on the version.
    bases = cast("tuple[type[Exception], ...]", errors.HfHubHTTPError.__bases__)
    network = (OSError, errors.HFValidationError, *bases)
    try:
        yield
    except HoneError:
        raise
    except network as fault:
        raise _translated(fault, repo, revision) from fault


def _translated(fault: BaseException, repo: str, revision: str | None) -> HoneError:
    from huggingface_hub import errors

    chain: list[BaseException] = []
    one: BaseException | None = fault
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(each, kinds) for each in chain)

    status = next(
        (each.response.status_code for each in chain if isinstance(each, errors.HfHubHTTPError)), 0
    )
    if isinstance(fault, OSError) and fault.errno in _DISK:
        return DiskError(
            f"cannot keep the dataset's files: {fault.strerror}",
            where=repo,
            remedy="free some space or point HF_HOME elsewhere; data.streaming=true keeps no files",
        )
    if has(errors.OfflineModeIsEnabled):
        return _UnreachableError(
            "HF_HUB_OFFLINE is set",
            where=repo,
            remedy="there is no such file or folder here, and the dataset was not fetched before: "
            "unset HF_HUB_OFFLINE once",
        )
    if has(errors.GatedRepoError) or status == 403 or "is a gated dataset" in str(fault):
        return EnvironmentFault(
            "the dataset is gated: its owner gives access by name",
            where=repo,
            remedy="ask for access on its page, then set HF_TOKEN to a token of that account",
        )
    if has(errors.RevisionNotFoundError):
        return ConfigError(
            f"no revision {revision!r}",
            where=repo,
            remedy="data.revision names a branch, a tag or a commit of the dataset",
        )
    if has(errors.RepositoryNotFoundError, errors.HFValidationError):
        return DataError(
            "no such file or folder here, and no such dataset on the hub",
            where=repo,
            remedy="check the name; a private dataset needs HF_TOKEN",
        )
    if status == 401:
        return EnvironmentFault(
            "the hub does not accept the token", where=repo, remedy="check HF_TOKEN"
        )
    said = (str(fault).strip() or type(fault).__name__).splitlines()[0]
    return _UnreachableError(f"the hub gives no answer: {said}", where=repo, remedy=_REACH)


def _token() -> str | None:
    return os.environ.get("HF_TOKEN") or None
