"""The store: everything that the service must not forget, in one SQLite file. Each method is one transaction.

One object serves any number of threads, and any number of processes may open the same folder.
"""

from __future__ import annotations

from hone.service.tables.files import Files
from hone.service.tables.jobs import Jobs
from hone.service.tables.keys import Keys
from hone.service.tables.models import Models
from hone.service.tables.queue import Queue


class Store(Keys, Files, Jobs, Queue, Models):
    """The store in a folder: `Store(root)` opens it, and makes it where it is absent."""
