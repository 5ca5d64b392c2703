"""The hub's side of publishing: a repository made, a folder sent, by huggingface_hub. It decides nothing.

The token is read from the environment alone and is handed on, never shown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from hone.errors import ConfigError, RemoteError

TOKEN: Final = "HF_TOKEN"  # noqa: S105 - the name of a variable


def require_token() -> str:
    """The token in `HF_TOKEN`; ConfigError where there is none."""
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise ConfigError(
            f"publishing needs a token with the right to write, in {TOKEN}",
            remedy=f"make one in the hub's settings, then: export {TOKEN}=…",
        )
    return token


def upload(folder: Path, repo: str, *, names: Sequence[str], private: bool, message: str) -> str:
    """Make the repository where it is not there, send these files of `folder`; returns where they are.

    A repository that is there keeps its visibility. Raises ConfigError for a name that the hub does not take,
    RemoteError for what it refuses.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    token = require_token()
    hub: Any = huggingface_hub.HfApi(token=token)
    try:
        hub.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        hub.upload_folder(
            repo_id=repo,
            folder_path=str(folder),
            allow_patterns=list(names),
            commit_message=message,
            repo_type="model",
        )
    except HFValidationError as error:
        raise ConfigError(
            f"the hub takes no such name: {repo}", remedy="write it as USER/NAME"
        ) from error
    except OfflineModeIsEnabled as error:
        raise ConfigError(
            "HF_HUB_OFFLINE is set, and publishing needs the network", remedy="unset HF_HUB_OFFLINE"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RemoteError(
            f"the hub refused it: {said.replace(token, '***')}",
            remedy="check the name, the token's rights and the network; the same command sends only what is missing",
        ) from error
    return f"{cast(str, hub.endpoint).rstrip('/')}/{repo}"


def is_private(repo: str) -> bool | None:
    """Whether a repository is private; None where it is not there. RemoteError where the hub does not answer."""
    import huggingface_hub
    from huggingface_hub.errors import (  # fmt: skip
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    token = require_token()
    hub: Any = huggingface_hub.HfApi(token=token)
    try:
        return bool(hub.model_info(repo).private)
    except RepositoryNotFoundError:
        return None
    except HFValidationError as error:
        raise ConfigError(
            f"the hub takes no such name: {repo}", remedy="write it as USER/NAME"
        ) from error
    except OfflineModeIsEnabled as error:
        raise ConfigError(
            "HF_HUB_OFFLINE is set, and publishing needs the network", remedy="unset HF_HUB_OFFLINE"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RemoteError(
            f"the hub does not answer: {said.replace(token, '***')}",
            remedy="check the token's rights and the network",
        ) from error
