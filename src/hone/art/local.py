"""LocalBackend as ART's scripts know it: models lie in `.art` where no path is given."""

from __future__ import annotations

from hone.backends import local
from hone.trainable.folder import ART_FOLDER


class LocalBackend(local.LocalBackend):
    """Hone's LocalBackend over the folder `.art`."""

    folder_name = ART_FOLDER
