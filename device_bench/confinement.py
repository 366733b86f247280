"""What the measuring process takes from itself before it touches a file: memory, time, cores, the network."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from device_bench import sensors
from device_bench.protocol import FailureKind, Limits
from device_bench.runtimes.base import RuntimeFailure

# The share of the machine's memory that a model may fill where the limits name no size: what is left keeps
# the system and an agent alive.
DEFAULT_MEMORY_SHARE = 0.8

# From Linux's sched.h; Python has had names for them since 3.12.
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def apply_limits(limits: Limits) -> None:
    """Bind this process and what it starts.

    Memory: `address_space_bytes` is RLIMIT_AS, which counts whatever is mapped, the libraries and a
    model file included (an idle process with ONNX Runtime maps about 1 GiB). Without it, private writable
    memory (RLIMIT_DATA) is held below `DEFAULT_MEMORY_SHARE` of what the machine or its container has. That
    one leaves out address space that is only reserved, of which a GPU's driver takes terabytes. Should memory
    run out all the same, Linux is told to end this process first.

    Processes: RLIMIT_NPROC counts all processes and threads of the user, other programs' as well, and
    counts nothing for root. `limits.processes` is therefore how many may come on top of those there
    now. It must leave room for the runtime's threads.
    """
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1)
    _lower(resource.RLIMIT_FSIZE, limits.file_bytes)
    if limits.address_space_bytes is not None:
        _lower(resource.RLIMIT_AS, limits.address_space_bytes)
    else:
        _lower(resource.RLIMIT_DATA, int(DEFAULT_MEMORY_SHARE * sensors.memory_bytes()))
    if limits.processes is not None:
        _lower(resource.RLIMIT_NPROC, tasks_of(os.getuid()) + limits.processes)
    with suppress(OSError):  # not Linux; the limits above hold there too
        Path("/proc/self/oom_score_adj").write_text("1000")


def _lower(limit: int, soft: int, hard: int | None = None) -> None:
    """Set a limit, never above what this process was given."""
    _, ceiling = resource.getrlimit(limit)
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(limit, (soft, hard))


def tasks_of(user: int, root: Path = sensors.ROOT) -> int:
    """How many threads all processes of a user have together."""
    count = 0
    for status in (root / "proc").glob("[0-9]*/status"):
        try:
            lines = status.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:  # it has ended meanwhile
            continue
        fields = dict(line.partition(":")[::2] for line in lines)
        if fields.get("Uid", "").split()[:1] == [str(user)]:
            count += int(fields.get("Threads", "1"))
    return count


def leave_network(unshare: Callable[[int], None] | None = None, root: Path = sensors.ROOT) -> bool:
    """Move this process to a network namespace of its own, which has no way out.

    Root may do so at once; others need a user namespace around it, which some systems forbid. Must be called
    while the process has one thread.

    Args:
        unshare: the system call; raises OSError where it is refused. None: Linux's own.
        root: of the file system whose /proc/self names the user in the new namespace.

    Returns:
        Whether the network is gone; False where the system does not allow it.
    """
    if unshare is None and not sys.platform.startswith("linux"):
        return False
    call = unshare or _unshare
    user, group = os.getuid(), os.getgid()
    try:
        call(_CLONE_NEWNET)
    except OSError:
        try:
            call(_CLONE_NEWUSER | _CLONE_NEWNET)
        except OSError:
            return False
        _keep_identity(user, group, root)
    return True


def _keep_identity(user: int, group: int, root: Path) -> None:
    """Be the same user inside the new user namespace; without it every name looks like nobody's."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with suppress(OSError):  # files are opened by the true user all the same
            (root / "proc/self" / name).write_text(text)


def _unshare(flags: int) -> None:
    # os.unshare came with Python 3.12.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def bind_cores(cores: Iterable[int]) -> None:
    """Run on these cores only. Threads started later inherit it.

    Raises:
        RuntimeFailure: a core is not there, or the system does not bind processes.
    """
    wanted = set(cores)
    if not wanted:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED, f"{sys.platform} does not bind processes to cores; leave out the cores"
        )
    there = _usable_cores()
    if not wanted <= there:
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED,
            f"cores {sorted(wanted - there)} are not there; this machine lets processes use {sorted(there)}",
        )
    os.sched_setaffinity(0, wanted)


def _usable_cores() -> set[int]:
    """Every core that this process may be bound to, also those outside of its present binding."""
    before = os.sched_getaffinity(0)
    # Linux leaves out of the set whatever is not there or not allowed.
    os.sched_setaffinity(0, range(max(os.cpu_count() or 1, *before) + 1))
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before)
    return usable
