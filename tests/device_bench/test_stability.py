"""What a machine's state gives as advice, against made-up file systems."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from device_bench import stability

CORES = "sys/devices/system/cpu"


def put(root: Path, path: str, text: object) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")


def only(root: Path) -> str:
    (note,) = stability.advice(root)
    return note


def test_nothing_told_no_advice(tmp_path: Path) -> None:
    assert stability.advice(tmp_path) == ()
    assert stability.throttle_count(tmp_path) == 0


def test_the_governor(tmp_path: Path) -> None:
    for core, name in enumerate(("performance", "powersave", "powersave")):
        put(tmp_path, f"{CORES}/cpu{core}/cpufreq/scaling_governor", name)
    note = only(tmp_path)
    assert note.startswith("governor is powersave on 2 core(s): set performance with `echo performance")
    for core in (1, 2):
        put(tmp_path, f"{CORES}/cpu{core}/cpufreq/scaling_governor", "performance")
    assert stability.advice(tmp_path) == ()


def test_a_capped_clock(tmp_path: Path) -> None:
    put(tmp_path, f"{CORES}/cpu0/cpufreq/scaling_max_freq", 1_200_000)
    put(tmp_path, f"{CORES}/cpu0/cpufreq/cpuinfo_max_freq", 2_400_000)
    assert "1200 of 2400 MHz on cpu0" in only(tmp_path)


@pytest.mark.parametrize(("path", "on", "off"), [("intel_pstate/no_turbo", 0, 1), ("cpufreq/boost", 1, 0)])
def test_turbo(tmp_path: Path, path: str, on: int, off: int) -> None:
    put(tmp_path, f"{CORES}/{path}", on)
    assert f"echo {off} | sudo tee" in only(tmp_path) and path in only(tmp_path)
    put(tmp_path, f"{CORES}/{path}", off)
    assert stability.advice(tmp_path) == ()


def test_close_to_the_temperature_that_slows_it_down(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone0"
    put(tmp_path, f"{zone}/type", "cpu-thermal")
    put(tmp_path, f"{zone}/trip_point_0_type", "passive")
    put(tmp_path, f"{zone}/trip_point_0_temp", 80_000)
    put(tmp_path, f"{zone}/trip_point_1_type", "critical")
    put(tmp_path, f"{zone}/trip_point_1_temp", 60_000)
    put(tmp_path, f"{zone}/temp", 74_000)
    assert stability.advice(tmp_path) == ()
    put(tmp_path, f"{zone}/temp", 78_000)
    assert "cpu-thermal is at 78 °C, and the clock is lowered from 80 °C" in only(tmp_path)


def test_throttled_by_the_kernel(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/thermal/cooling_device0/type", "cpufreq-cpu0")
    put(tmp_path, "sys/class/thermal/cooling_device0/cur_state", 2)
    put(tmp_path, "sys/class/thermal/cooling_device0/max_state", 5)
    put(tmp_path, "sys/class/thermal/cooling_device1/type", "pwm-fan")
    put(tmp_path, "sys/class/thermal/cooling_device1/cur_state", 4)
    assert "throttled for heat (cpufreq-cpu0 at 2 of 5)" in only(tmp_path)


def test_a_raspberry_pi_of_little_voltage(tmp_path: Path) -> None:
    word = "sys/devices/platform/soc/soc:firmware/get_throttled"
    put(tmp_path, word, "50005")
    low, hot = stability.advice(tmp_path)
    assert "supply voltage is too low" in low and "throttled" in hot
    put(tmp_path, word, "50000")  # it held once, and holds no more
    assert stability.advice(tmp_path) == ()
    put(tmp_path, word, "what?")
    assert stability.advice(tmp_path) == ()


def test_load_of_the_last_minute(tmp_path: Path) -> None:
    put(tmp_path, "proc/loadavg", f"{2 * (os.cpu_count() or 1)}.00 1.0 0.5 2/300 4242")
    assert "load was" in only(tmp_path)
    # Before a measurement only the present counts: the last minute may have been a measurement.
    assert stability.before_measuring(1, tmp_path, lambda seconds: None) == ()


def test_throttling_is_counted(tmp_path: Path) -> None:
    put(tmp_path, f"{CORES}/cpu0/thermal_throttle/core_throttle_count", 3)
    put(tmp_path, f"{CORES}/cpu1/thermal_throttle/package_throttle_count", 4)
    assert stability.throttle_count(tmp_path) == 7


def test_more_threads_than_cores(tmp_path: Path) -> None:
    (note,) = stability.before_measuring(4096, tmp_path, lambda seconds: None)
    assert note.startswith("4096 threads share the")


def test_somebody_else_runs_all_the_time(tmp_path: Path) -> None:
    cores = os.cpu_count() or 1
    put(tmp_path, "proc/stat", f"cpu 1 2 3\nprocs_running {cores + 1}\nprocs_blocked 0")
    (note,) = stability.before_measuring(1, tmp_path, lambda seconds: None)
    assert note.startswith(f"{cores} other process(es) ran all the time")


def test_who_pauses_between_two_looks_is_forgiven(tmp_path: Path) -> None:
    put(tmp_path, "proc/stat", "procs_running 4000")
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        put(tmp_path, "proc/stat", "procs_running 1")

    assert stability.before_measuring(1, tmp_path, sleep) == ()
    assert 2 <= len(looks) <= 8 and sum(looks) < 0.05
