"""Devices that a killed server counts as taken are free when the next one stands."""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.settings import PREFECT_HOME, Settings, temporary_settings

from flows.deployments.leases import LEASES_ON_DISK, forget_leases, free_devices


class Limits:
    """What a server has, read and updated as by Prefect's client."""

    def __init__(self, taken: dict[str, int]) -> None:
        self.taken = taken

    async def read_global_concurrency_limits(self, limit: int, offset: int) -> list[SimpleNamespace]:
        found = [SimpleNamespace(name=name, active_slots=slots) for name, slots in self.taken.items()]
        return found[offset : offset + limit]

    async def update_global_concurrency_limit(self, name: str, update: Any) -> None:
        assert update.model_dump(exclude_unset=True) == {"active_slots": 0}
        self.taken[name] = 0


def test_devices_are_freed_and_what_others_limit_is_left() -> None:
    limits = Limits({"device-pi4": 1, "device-local": 0, "database": 2})
    client: Any = limits
    assert asyncio.run(free_devices(client)) == ["device-pi4"]
    assert limits.taken == {"device-pi4": 0, "device-local": 0, "database": 2}


def test_leases_lie_where_they_are_forgotten(tmp_path: Path) -> None:
    (module,) = LEASES_ON_DISK.values()
    with temporary_settings({PREFECT_HOME: tmp_path}):
        place = import_module(module).ConcurrencyLeaseStorage().storage_path
    place.mkdir()
    (place / "expirations.json").write_text("{}")
    forget_leases(tmp_path)
    assert not place.exists()
    forget_leases(tmp_path)


def test_prefect_knows_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LEASES_ON_DISK.items():
        monkeypatch.setenv(name, value)
        assert Settings().server.concurrency.lease_storage == value
