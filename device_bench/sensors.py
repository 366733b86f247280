"""What the machine is and how it fares, read from where Linux tells it. What is not told is None.

Every function takes the root of the file system, so that a test can stand one up.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from device_bench.emulated.detection import is_emulated
from device_bench.protocol import DeviceInfo

ROOT = Path("/")

# The instructions that decide which kernels a runtime picks, as Linux spells them, x86 then Arm.
_ISA = (
    "sse4_1",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "avx_vnni_int8",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)

# Names of thermal zones that are the processor's; others are batteries, radios and disks.
_CPU_ZONES = ("x86_pkg_temp", "cpu", "soc", "k10temp", "coretemp", "acpitz")


def device_info(root: Path = ROOT) -> DeviceInfo:
    """Describe this machine."""
    cpu = _cpu_fields(root)
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return DeviceInfo(
        hostname=platform.node(),
        machine=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        cpu_model=_cpu_model(root, cpu),
        cpu_count=os.cpu_count() or 1,
        memory_bytes=_physical_bytes(),
        isa=tuple(name for name in _ISA if name in flags),
        emulated=is_emulated(root),
    )


def memory_bytes(root: Path = ROOT) -> int:
    """The memory that processes here may fill: the machine's, or less where a control group says so."""
    found = [_physical_bytes()]
    for line in (text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top, name = ("", "memory.max") if not controllers else ("memory", "memory.limit_in_bytes")
        folder = root / "sys/fs/cgroup" / top
        for part in ("", *Path(place).parts[1:]):
            folder = folder / part
            limit = number(folder / name)  # "max" is no number
            if limit is not None:
                found.append(int(limit))
    return min(found)


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def governor(root: Path = ROOT) -> str | None:
    """The frequency governor of the first core, for example "performance"."""
    return text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def frequency_mhz(root: Path = ROOT) -> float | None:
    """Mean present frequency of the cores in MHz."""
    paths = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    khz = [value for path in paths if (value := number(path)) is not None]
    if khz:
        return sum(khz) / len(khz) / 1e3
    lines = (text(root / "proc/cpuinfo") or "").splitlines()
    mhz = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return sum(mhz) / len(mhz) if mhz else None


def temperature_c(root: Path = ROOT) -> float | None:
    """The hottest of the processor's thermal zones, in degrees Celsius."""
    found = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        kind = (text(zone / "type") or "").lower()
        millidegrees = number(zone / "temp")
        if millidegrees is not None and any(name in kind for name in _CPU_ZONES):
            found.append(millidegrees / 1e3)
    return max(found) if found else None


def load_1m() -> float | None:
    """Mean number of runnable processes over the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def affinity() -> tuple[int, ...]:
    """The cores that this process may use; empty where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


def peak_resident_bytes(root: Path = ROOT) -> int:
    """Peak resident memory of this process since it started.

    Linux's VmHWM belongs to the program that runs now. `ru_maxrss`, used where there is no VmHWM, also
    counts what the parent held when it forked, so under a large parent it is too high.
    """
    for line in (text(root / "proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _cpu_fields(root: Path) -> dict[str, str]:
    """The first core's lines in /proc/cpuinfo, and the board's lines after the last core."""
    fields: dict[str, str] = {}
    for line in (text(root / "proc/cpuinfo") or "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _cpu_model(root: Path, cpu: dict[str, str]) -> str:
    # Arm kernels mostly name the board and not the core; the device tree ends its strings with a zero byte.
    board = (text(root / "proc/device-tree/model") or "").rstrip("\0")
    return cpu.get("model name") or cpu.get("Model") or board or platform.processor() or platform.machine()


def text(path: Path) -> str | None:
    """What a small file says, without white space around it; None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> float | None:
    """The number that a small file holds; None if it cannot be read or is none."""
    content = text(path)
    try:
        return None if content is None else float(content)
    except ValueError:
        return None
