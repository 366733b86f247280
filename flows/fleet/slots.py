"""Devices taken by Prefect's global concurrency limits: one of limit 1 for each physical device.

Prefect's pages show who holds which device, and flows on other machines wait as well. A lease ends by itself
when its holder was killed; a lock file beside it keeps runs apart that have another server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pipeline.device_slots import BusyError, current_slots, file_slot

# A killed holder keeps a device from others for at most that long.
LEASE_SECONDS = 60.0


def limit_name(device: str) -> str:
    """What a device's limit is called on the server."""
    return f"device-{device}"


@contextmanager
def prefect_slot(device: str, wait: bool) -> Iterator[None]:
    """The device for oneself, by its limit on the server and by its lock file.

    Raises:
        BusyError: not `wait`, and somebody else has it.
    """
    from prefect.concurrency.sync import concurrency

    ensure_limit(device)
    taken = concurrency(
        limit_name(device),
        occupy=1,
        timeout_seconds=None if wait else 0.5,
        lease_duration=LEASE_SECONDS,
        strict=True,
    )
    try:
        taken.__enter__()
    except TimeoutError as error:
        raise BusyError(f"another flow measures on {device}; try again when it is done") from error
    try:
        with file_slot(device, wait):
            yield
    finally:
        taken.__exit__(None, None, None)


@cache
def ensure_limit(device: str) -> None:
    """Make the device's limit where the server has none; one that somebody set stays as it is."""
    from prefect import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(limit_name(device))
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=limit_name(device), limit=1)
                )
            except ObjectAlreadyExists:
                return


@contextmanager
def devices_by_prefect() -> Iterator[None]:
    """Within the block, whoever measures takes devices by their limits on the server."""
    token = current_slots.set(prefect_slot)
    try:
        yield
    finally:
        current_slots.reset(token)
