"""Sensors against made-up file systems; what is absent stays None."""

from __future__ import annotations

import os
from pathlib import Path

from device_bench import sensors

X86 = """processor\t: 0
model name\t: Imaginary Xeon 3
cpu MHz\t\t: 2000.0
flags\t\t: fpu sse4_1 avx2 avx512_vnni avx_vnni

processor\t: 1
model name\t: Imaginary Xeon 3
cpu MHz\t\t: 3000.0
"""

ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd asimddp i8mm

Model\t\t: Raspberry Pi 5 Model B
"""


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_x86(tmp_path: Path) -> None:
    put(tmp_path, "proc/cpuinfo", X86)
    device = sensors.device_info(tmp_path)
    assert device.cpu_model == "Imaginary Xeon 3"
    assert device.isa == ("sse4_1", "avx2", "avx512_vnni", "avx_vnni")
    assert device.memory_bytes > 0
    assert sensors.frequency_mhz(tmp_path) == 2500.0


def test_arm(tmp_path: Path) -> None:
    put(tmp_path, "proc/cpuinfo", ARM)
    device = sensors.device_info(tmp_path)
    assert device.cpu_model == "Raspberry Pi 5 Model B"
    assert device.isa == ("asimd", "asimddp", "i8mm")


def test_the_device_tree_names_a_board(tmp_path: Path) -> None:
    put(tmp_path, "proc/device-tree/model", "Imaginary Board\0")
    assert sensors.device_info(tmp_path).cpu_model == "Imaginary Board"


def test_governor_frequency_and_temperature(tmp_path: Path) -> None:
    cores = "sys/devices/system/cpu"
    put(tmp_path, f"{cores}/cpu0/cpufreq/scaling_governor", "powersave\n")
    put(tmp_path, f"{cores}/cpu0/cpufreq/scaling_cur_freq", "1500000\n")
    put(tmp_path, f"{cores}/cpu1/cpufreq/scaling_cur_freq", "2500000\n")
    put(tmp_path, "sys/class/thermal/thermal_zone0/type", "battery\n")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "90000\n")
    put(tmp_path, "sys/class/thermal/thermal_zone1/type", "cpu-thermal\n")
    put(tmp_path, "sys/class/thermal/thermal_zone1/temp", "61500\n")
    assert sensors.governor(tmp_path) == "powersave"
    assert sensors.frequency_mhz(tmp_path) == 2000.0
    assert sensors.temperature_c(tmp_path) == 61.5


def test_what_is_absent_is_none(tmp_path: Path) -> None:
    assert sensors.governor(tmp_path) is None
    assert sensors.frequency_mhz(tmp_path) is None
    assert sensors.temperature_c(tmp_path) is None
    assert sensors.device_info(tmp_path).isa == ()


def test_a_reading_that_is_no_number_is_none(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/thermal/thermal_zone0/type", "cpu")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "n/a")
    assert sensors.temperature_c(tmp_path) is None


def test_peak_memory_is_the_high_water_mark(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/status", "VmPeak:\t9 kB\nVmHWM:\t  2048 kB\nVmRSS:\t1 kB\n")
    assert sensors.peak_resident_bytes(tmp_path) == 2048 * 1024
    # Without it the system's own accounting answers, for the process that runs this test.
    assert sensors.peak_resident_bytes(tmp_path / "nothing") > 1 << 20


def test_affinity_is_this_process() -> None:
    assert len(sensors.affinity()) <= (os.cpu_count() or 1)
    assert sensors.affinity() == tuple(sorted(sensors.affinity()))


def test_a_control_group_may_have_less_memory_than_the_machine(tmp_path: Path) -> None:
    whole = sensors.memory_bytes(tmp_path)
    assert whole == sensors.device_info(tmp_path).memory_bytes
    put(tmp_path, "proc/self/cgroup", "0::/board.slice/agent.service\n")
    put(tmp_path, "sys/fs/cgroup/board.slice/agent.service/memory.max", "max\n")
    assert sensors.memory_bytes(tmp_path) == whole
    put(tmp_path, "sys/fs/cgroup/board.slice/memory.max", "1048576\n")
    assert sensors.memory_bytes(tmp_path) == 1 << 20


def test_the_older_control_groups_too(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "5:cpu:/\n4:memory:/docker\n")
    put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    put(tmp_path, "sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "2097152\n")
    assert sensors.memory_bytes(tmp_path) == 2 << 20
