"""What a server that is another program's child does besides serving: say when it is ready, and end with its parent."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time


def end_with_parent(parent: int) -> None:
    """End as by a signal when `parent` is gone: a parent that was killed tells nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        os._exit(1)  # whatever held it up

    threading.Thread(target=watch, name="hone-parent", daemon=True).start()


def say(told: dict[str, object]) -> None:
    """One line of JSON for the parent."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
