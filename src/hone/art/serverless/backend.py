"""The backend of a service as ART's scripts know it: what is kept of a model here lies in `.art`."""

from __future__ import annotations

from hone.backends import serverless
from hone.trainable.folder import ART_FOLDER


class ServerlessBackend(serverless.ServerlessBackend):
    """Hone's ServerlessBackend over the folder `.art`."""

    folder_name = ART_FOLDER
