"""Energy against made-up file systems and a clock that moves when told."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_bench import energy
from device_bench.energy import Meter, find_meter

SECOND = 1_000_000_000


def put(root: Path, path: str, text: object) -> Path:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")
    return root / path


def found(root: Path) -> Meter:
    meter = find_meter(0, root)
    assert meter is not None
    return meter


def rapl(root: Path, zone: str, name: str, energy_uj: float, range_uj: float = 1e6) -> Path:
    folder = f"sys/class/powercap/intel-rapl:{zone}"
    put(root, f"{folder}/name", name)
    put(root, f"{folder}/max_energy_range_uj", int(range_uj))
    return put(root, f"{folder}/energy_uj", int(energy_uj))


def test_rapl_adds_packages_and_memory_and_nothing_twice(tmp_path: Path) -> None:
    package = rapl(tmp_path, "0", "package-0", 100_000)
    core = rapl(tmp_path, "0:0", "core", 50_000)
    memory = rapl(tmp_path, "0:1", "dram", 10_000)
    platform = rapl(tmp_path, "1", "psys", 900_000)
    meter = found(tmp_path)
    assert meter.source == "RAPL package-0 + dram"
    for path, energy_uj in ((package, 300_000), (core, 150_000), (memory, 15_000), (platform, 990_000)):
        path.write_text(str(energy_uj))
    assert meter.joules(SECOND) == pytest.approx(0.205)


def test_a_counter_begins_again(tmp_path: Path) -> None:
    package = rapl(tmp_path, "0", "package-0", 900_000, range_uj=1_000_000)
    meter = found(tmp_path)
    package.write_text("100000")
    assert meter.joules(SECOND) == pytest.approx(0.2)
    package.write_text("50000")
    assert meter.joules(2 * SECOND) == pytest.approx(0.2 + 0.95)


def test_a_counter_that_may_not_be_read_is_absent(tmp_path: Path) -> None:
    rapl(tmp_path, "0", "package-0", 1).unlink()  # root's alone: to us as if it were not there
    assert find_meter(0, tmp_path) is None


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert find_meter(0, tmp_path) is None


def jetson(root: Path, rails: dict[str, tuple[float, float]]) -> str:
    folder = "sys/class/hwmon/hwmon3"
    put(root, f"{folder}/name", "ina3221")
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        put(root, f"{folder}/in{channel}_label", label)
        put(root, f"{folder}/in{channel}_input", millivolts)
        put(root, f"{folder}/curr{channel}_input", milliamperes)
    return folder


def test_ina3221_takes_the_rail_that_feeds_the_others(tmp_path: Path) -> None:
    jetson(tmp_path, {"VDD_CPU_GPU_CV": (5000, 400), "VDD_IN": (5000, 1000), "VDD_SOC": (5000, 200)})
    meter = found(tmp_path)
    assert meter.source == "INA3221 VDD_IN"
    assert meter.joules(2 * SECOND) == pytest.approx(10.0)  # 5 W for 2 s


def test_ina3221_adds_rails_and_integrates(tmp_path: Path) -> None:
    folder = jetson(tmp_path, {"CPU": (5000, 400), "SOC": (5000, 200)})
    meter = found(tmp_path)
    put(tmp_path, f"{folder}/curr1_input", 800)
    assert meter.joules(SECOND) == pytest.approx(4.0)  # 3 W rising to 5 W
    assert meter.joules(2 * SECOND) == pytest.approx(9.0)
    (tmp_path / folder / "in2_input").unlink()
    assert meter.joules(3 * SECOND) is None


def test_hwmon_counts_sockets_and_not_their_cores(tmp_path: Path) -> None:
    folder = "sys/class/hwmon/hwmon0"
    put(tmp_path, f"{folder}/name", "amd_energy")
    for channel, label in ((1, "Ecore000"), (2, "Esocket0")):
        put(tmp_path, f"{folder}/energy{channel}_label", label)
        put(tmp_path, f"{folder}/energy{channel}_input", 1000)
    meter = found(tmp_path)
    assert meter.source == "hwmon amd_energy Esocket0"
    put(tmp_path, f"{folder}/energy2_input", 2_001_000)
    assert meter.joules(SECOND) == pytest.approx(2.0)
    put(tmp_path, f"{folder}/energy2_input", 5)  # it began again, and nobody says from what
    assert meter.joules(2 * SECOND) is None


def test_hwmon_power_of_the_board_and_not_of_a_graphics_card(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/hwmon/hwmon0/name", "amdgpu")
    put(tmp_path, "sys/class/hwmon/hwmon0/power1_input", 90_000_000)
    assert find_meter(0, tmp_path) is None
    put(tmp_path, "sys/class/hwmon/hwmon1/name", "ina226")
    put(tmp_path, "sys/class/hwmon/hwmon1/power1_input", 4_000_000)
    meter = found(tmp_path)
    assert meter.source == "hwmon ina226 power1"
    assert meter.joules(SECOND // 2) == pytest.approx(2.0)


class Machine:
    """An inference lasts 10 ms and takes 30 mJ."""

    def __init__(self, package: Path) -> None:
        self.now_ns = 0
        self.runs = 0
        self._package = package

    def clock(self) -> int:
        return self.now_ns

    def run(self) -> None:
        self.runs += 1
        self.now_ns += 10_000_000
        self._package.write_text(str(30_000 * self.runs % 1_000_000))


def test_energy_of_one_inference(tmp_path: Path) -> None:
    machine = Machine(rapl(tmp_path, "0", "package-0", 0))
    measured = energy.measure(machine.run, found(tmp_path), 1.0, machine.clock)
    assert measured is not None
    # 100 runs take 3 J, so the counter began again twice.
    assert machine.runs == 100
    assert (measured.source, measured.mean_mj) == ("RAPL package-0", pytest.approx(30.0))


def test_at_least_one_inference(tmp_path: Path) -> None:
    machine = Machine(rapl(tmp_path, "0", "package-0", 0))
    measured = energy.measure(machine.run, found(tmp_path), 0.0, machine.clock)
    assert measured is not None and measured.mean_mj == pytest.approx(30.0)
    assert machine.runs == 1


def test_a_counter_that_stands_still_is_absent_and_not_zero(tmp_path: Path) -> None:
    rapl(tmp_path, "0", "package-0", 7)
    machine = Machine(tmp_path / "elsewhere")
    assert energy.measure(machine.run, found(tmp_path), 0.1, machine.clock) is None
