"""Devices that were held when the server ended: leases outlive it on the disk, and end with `server up`.

Prefect keeps leases in memory unless told otherwise. A server killed while somebody measures would then count
the device as taken for ever, since nobody is left to give it back.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from flows.fleet.slots import limit_name

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

# For a server that is killed and started again while flow runs go on.
LEASES_ON_DISK = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"
}


def forget_leases(home: Path) -> None:
    """Drop what leases an earlier server of this Prefect home left; before a new one starts."""
    shutil.rmtree(home / "concurrency_leases", ignore_errors=True)


async def free_devices(client: PrefectClient) -> list[str]:
    """Give back every device that the server counts as taken, before any flow run of it is at work.

    Returns:
        the names of the limits that were freed.
    """
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

    freed = []
    for limit in await client.read_global_concurrency_limits(limit=200, offset=0):
        if limit.name.startswith(limit_name("")) and limit.active_slots > 0:
            await client.update_global_concurrency_limit(
                limit.name, GlobalConcurrencyLimitUpdate(active_slots=0)
            )
            freed.append(limit.name)
    return freed
