"""A runtime whose models do what their file says: the ways in which a real one breaks, on demand.

A model of `device_bench.runtimes.base.Runtime`'s form. Children find it through PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from device_bench.protocol import FailureKind, Placement, TensorInfo
from device_bench.runtimes.base import Array, LoadOptions, RuntimeFailure

HELD_BYTES = 64 << 20


class FaultyModel:
    """Returns its input. Writes the start and end of every run to `log`, if there is one."""

    inputs = (TensorInfo(name="x", shape=(1, 4), dtype="float32"),)
    outputs = (TensorInfo(name="y", shape=(1, 4), dtype="float32"),)
    arena_bytes: int | None = 1234
    placements = (
        Placement(where="Fault", operator="CONV", count=3),
        Placement(where="plain kernels", operator="ADD", count=1),
    )
    notes: tuple[str, ...] = ("the faulty runtime measured this",)

    def __init__(self, log: Path | None = None, held: Array | None = None) -> None:
        self._log = log
        self.held = held
        self._arrays: list[Array] = []

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        self._arrays = list(arrays)

    def invoke(self) -> None:
        start = time.monotonic_ns()
        time.sleep(0.001)
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(f"{os.getpid()} {start} {time.monotonic_ns()}\n")

    def read_outputs(self) -> list[Array]:
        return self._arrays


def _bounds() -> dict[str, object]:
    names = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_CORE")
    found: dict[str, object] = {name: resource.getrlimit(getattr(resource, name))[0] for name in names}
    return {**found, "cores": sorted(os.sched_getaffinity(0)), "user": os.getuid()}


def version() -> str:
    return "0.0-faulty"


def accelerators() -> tuple[str, ...]:
    return ("cpu", "flaky")


def load(path: Path, options: LoadOptions) -> FaultyModel:
    word, _, rest = path.read_text().partition(" ")
    match word:
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "abort":
            print("libfaulty: assertion failed", file=sys.stderr, flush=True)  # noqa: T201
            os.abort()
        case "chatter":
            line = "2026-01-01 [I:onnxruntime:Default, bfc_arena.cc:281 Reserve] Reserving memory: 64"
            print(f"{line}\n" * 50 + f"libfaulty: the end\n{line}", file=sys.stderr, flush=True)  # noqa: T201
            os.abort()
        case "bad_alloc":
            print("what(): std::bad_alloc", file=sys.stderr, flush=True)  # noqa: T201
            os.abort()
        case "no_room":
            print("MemoryError", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(1)
        case "alarm":
            os.kill(os.getpid(), signal.SIGALRM)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
        case "memory":
            raise MemoryError("no room for 1 TiB")
        case "refuse":
            raise RuntimeFailure(FailureKind.UNSUPPORTED, "operator Foo is unknown")
        case "raise":
            raise OSError("disk on fire")
        case "hang":
            time.sleep(600)
        case "breed":
            grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            Path(rest).write_text(str(grandchild.pid))
            os.abort()
        case "noise":
            print('{"kind": "crashed", "message": "no"}\n' * 100, flush=True)  # noqa: T201
        case "hold":
            return FaultyModel(held=np.ones(HELD_BYTES, dtype=np.uint8))
        case "greed":
            return FaultyModel(held=np.empty(int(rest), dtype=np.uint8))
        case "write":
            name, size = rest.split()
            Path(name).write_bytes(bytes(int(size)))
        case "connect":
            socket.create_connection(("127.0.0.1", int(rest)), timeout=10).close()
        case "tell":
            raise RuntimeFailure(FailureKind.UNSUPPORTED, json.dumps(_bounds()))
        case "log":
            return FaultyModel(log=Path(rest))
    return FaultyModel()
