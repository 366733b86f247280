"""Prefect's process worker as a child of `edgeloop server up`.

`python -m flows.deployments.worker POOL NAME LIMIT` ends when its parent does, however that ends, and
takes the processes of its flow runs along; those runs go on when the command is given again.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import partial
from pathlib import Path

import psutil

from flows.deployments.ending import end_processes
from flows.deployments.ledger import FOLDER_VARIABLE, Ledger


def work(pool: str, name: str, limit: int) -> None:
    """Take the pool's flow runs, at most `limit` at a time, until standard input closes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import anyio
    from prefect.workers.process import ProcessWorker

    worker = ProcessWorker(work_pool_name=pool, name=name, limit=limit, create_pool_if_not_found=False)
    anyio.run(partial(worker.start, printer=_say))


def _end_with_parent() -> None:
    # Not by sys.stdin: its lock would be held when the interpreter ends for another reason.
    while os.read(0, 1):
        pass
    below = psutil.Process().children(recursive=True)
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        Ledger(Path(folder)).note_ending({process.pid for process in below})
    end_processes(below)
    os._exit(0)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
