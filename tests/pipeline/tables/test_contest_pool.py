"""Workers of a contest's pool do not outlive a contest that was killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

PATIENCE_SECONDS = 60.0
# A main that the spawned worker may import: it runs nothing there.
OWNER = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from pipeline.tables.contest import as_child

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=as_child)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


def test_a_worker_goes_with_an_owner_that_was_killed(tmp_path: Path) -> None:
    program = tmp_path / "owner.py"
    program.write_text(OWNER)
    owner = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        worker = psutil.Process(int(owner.stdout.readline()))
        assert worker.is_running()
        owner.kill()
        owner.wait()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the worker of a killed owner waits for ever"
            time.sleep(0.05)
