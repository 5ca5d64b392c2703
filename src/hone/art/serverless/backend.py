"""The backend of a service, under the name that ART's scripts use."""

from __future__ import annotations

from hone.backends.serverless import ServerlessBackend

__all__ = ["ServerlessBackend"]
