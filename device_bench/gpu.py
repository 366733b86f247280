"""What NVIDIA's management library (NVML) tells of this process. Absent where it, or a device, is absent."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any


def process_bytes(pid: int | None = None) -> int | None:
    """Device memory that a process holds on all devices together.

    Args:
        pid: of the process; None is this one.

    Returns:
        None without nvidia-ml-py (the extra `gpu`), without a device, or where the driver does not tell, as
        in a container whose process ids are not the host's.
    """
    wanted = os.getpid() if pid is None else pid
    nvml = _library()
    if nvml is None:
        return None
    try:
        devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        processes = [each for device in devices for each in nvml.nvmlDeviceGetComputeRunningProcesses(device)]
    except nvml.NVMLError:
        return None
    found = [process.usedGpuMemory for process in processes if process.pid == wanted]
    if not found or None in found:
        return None
    return int(sum(found))


class NvmlMeter:
    """Energy of the first device, which the driver counts in mJ (Volta and later)."""

    source = "NVML device 0"

    def joules(self, now_ns: int) -> float | None:
        """Energy since the driver was loaded; None where it does not count."""
        nvml = _library()
        if nvml is None:
            return None
        try:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByIndex(0))) / 1e3
        except nvml.NVMLError:
            return None


@cache
def _library() -> Any:
    """The module, ready for use until this process ends; None without it or without a driver."""
    try:
        nvml = import_module("pynvml")
    except ModuleNotFoundError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml
