"""What a measuring process may still do after it has confined itself."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_bench import confinement, sensors
from device_bench.local import measure
from device_bench.protocol import BenchRequest, Failure, FailureKind, Limits, Measurement

Make = Callable[..., BenchRequest]

needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system does not bind processes to cores"
)


def bounds(request: BenchRequest) -> dict[str, Any]:
    found = measure(request)
    assert isinstance(found, Failure) and found.kind is FailureKind.UNSUPPORTED, found
    told: dict[str, Any] = json.loads(found.message)
    return told


def test_every_limit_holds_in_the_child(faulty: Make) -> None:
    limits = Limits(cpu_seconds=77, file_bytes=1 << 20, address_space_bytes=3 << 30, processes=50)
    told = bounds(faulty("tell").model_copy(update={"limits": limits}))
    assert (told["RLIMIT_CPU"], told["RLIMIT_FSIZE"], told["RLIMIT_CORE"]) == (77, 1 << 20, 0)
    assert told["RLIMIT_AS"] == 3 << 30
    assert told["RLIMIT_NPROC"] > 50  # on top of what the user runs already
    assert told["user"] == os.getuid()


def test_without_a_size_the_machines_memory_bounds_a_model(faulty: Make) -> None:
    whole = sensors.memory_bytes()
    assert bounds(faulty("tell"))["RLIMIT_DATA"] == int(confinement.DEFAULT_MEMORY_SHARE * whole)
    found = measure(faulty(f"greed {whole}"))
    assert isinstance(found, Failure) and found.kind is FailureKind.OUT_OF_MEMORY


def test_a_file_that_grows_too_large(faulty: Make, tmp_path: Path) -> None:
    limits = Limits(file_bytes=1 << 20)
    fits = faulty(f"write {tmp_path / 'small'} {1 << 19}").model_copy(update={"limits": limits})
    assert isinstance(measure(fits), Measurement)
    found = measure(faulty(f"write {tmp_path / 'large'} {1 << 21}").model_copy(update={"limits": limits}))
    assert isinstance(found, Failure) and os.strerror(errno.EFBIG) in found.message
    assert (tmp_path / "large").stat().st_size <= 1 << 20


@pytest.mark.parametrize("network", [False, True])
def test_the_network_is_away_unless_it_is_allowed(faulty: Make, network: bool) -> None:
    limits = Limits(network=network)
    plain = measure(faulty("work").model_copy(update={"limits": limits}))
    assert isinstance(plain, Measurement)
    assert (plain.conditions.network_isolated is None) == network
    with socket.create_server(("127.0.0.1", 0)) as server:
        taker = threading.Thread(target=_accept_one, args=(server,), daemon=True)
        taker.start()
        request = faulty(f"connect {server.getsockname()[1]}").model_copy(update={"limits": limits})
        reached = isinstance(measure(request), Measurement)
    # Where the system does not allow it, the conditions say so, and the connection works.
    assert reached == (not plain.conditions.network_isolated)


def _accept_one(server: socket.socket) -> None:
    try:
        connection, _ = server.accept()
    except OSError:  # closed: nobody came
        return
    connection.close()


def test_who_is_not_root_gets_a_user_namespace_around_it(tmp_path: Path) -> None:
    asked: list[int] = []

    def only_with_user(flags: int) -> None:
        asked.append(flags)
        if not flags & confinement._CLONE_NEWUSER:
            raise PermissionError

    (tmp_path / "proc/self").mkdir(parents=True)
    assert confinement.leave_network(only_with_user, tmp_path)
    assert asked == [0x40000000, 0x50000000]
    assert (tmp_path / "proc/self/setgroups").read_text() == "deny"
    assert (tmp_path / "proc/self/uid_map").read_text() == f"{os.getuid()} {os.getuid()} 1"


def test_a_system_that_forbids_namespaces_keeps_the_network() -> None:
    def never(flags: int) -> None:
        raise PermissionError

    assert not confinement.leave_network(never)


def test_only_the_users_own_threads_count(tmp_path: Path) -> None:
    for pid, user, threads in ((1, 0, 1), (20, 1000, 3), (21, 1000, 4)):
        folder = tmp_path / "proc" / str(pid)
        folder.mkdir(parents=True)
        (folder / "status").write_text(f"Name:\tx\nUid:\t{user}\t{user}\t0\t0\nThreads:\t{threads}\n")
    (tmp_path / "proc" / "22").mkdir()
    assert confinement.tasks_of(1000, tmp_path) == 7
    assert confinement.tasks_of(5, tmp_path) == 0


@needs_affinity
def test_the_cores_asked_for(faulty: Make) -> None:
    core = min(os.sched_getaffinity(0))
    assert bounds(faulty("tell").model_copy(update={"cores": (core,)}))["cores"] == [core]
    found = measure(faulty("work").model_copy(update={"cores": (core,)}))
    assert isinstance(found, Measurement) and found.conditions.affinity == (core,)


@needs_affinity
def test_a_core_that_is_not_there(faulty: Make) -> None:
    found = measure(faulty("work").model_copy(update={"cores": (0, 4000)}))
    assert isinstance(found, Failure) and found.kind is FailureKind.UNSUPPORTED
    assert "[4000] are not there" in found.message
    assert str(min(os.sched_getaffinity(0))) in found.message
