"""NVML by a stand-in of the library, and without it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

from device_bench import gpu


class NVMLError(Exception):
    pass


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    gpu._library.cache_clear()
    yield
    gpu._library.cache_clear()


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Two devices; this process holds 100 bytes on the one and 20 on the other."""
    module = ModuleType("pynvml")
    held = {
        0: [SimpleNamespace(pid=os.getpid(), usedGpuMemory=100), SimpleNamespace(pid=1, usedGpuMemory=7)],
        1: [SimpleNamespace(pid=os.getpid(), usedGpuMemory=20)],
    }
    names = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: held[handle],
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 5500 + handle,
    }
    for name, value in names.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_memory_of_this_process_on_all_devices(nvml: ModuleType) -> None:
    assert gpu.process_bytes() == 120
    assert gpu.process_bytes(pid=1) == 7
    assert gpu.process_bytes(pid=2) is None


def test_energy_is_in_joules(nvml: ModuleType) -> None:
    assert gpu.NvmlMeter().joules(0) == 5.5


def test_what_the_driver_does_not_tell_is_absent(nvml: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> object:
        raise NVMLError("not supported")

    monkeypatch.setattr(nvml, "nvmlDeviceGetComputeRunningProcesses", refuse)
    monkeypatch.setattr(nvml, "nvmlDeviceGetTotalEnergyConsumption", refuse)
    assert gpu.process_bytes() is None
    assert gpu.NvmlMeter().joules(0) is None


def test_memory_that_is_not_available_is_absent(nvml: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)]
    monkeypatch.setattr(nvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: unknown)
    assert gpu.process_bytes() is None


def test_without_a_driver(nvml: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NVMLError("driver not loaded")

    monkeypatch.setattr(nvml, "nvmlInit", refuse)
    assert gpu.process_bytes() is None
    assert gpu.NvmlMeter().joules(0) is None


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu.process_bytes() is None
