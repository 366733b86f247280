"""The aarch64 builds of the runtimes and of the agent, emulated, over the network."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from bench_suite import BY_FILE, BenchSuite, each_format, each_model, pictures_for, request_of

from device_bench.bench import Bench, LocalBench
from device_bench.client import AgentBench
from device_bench.emulated.board import Board
from device_bench.emulated.detection import VARIABLE
from device_bench.known_models import KnownModel
from device_bench.protocol import Comparison, Measurement, Rounds

pytestmark = pytest.mark.arm


class TestArmBench(BenchSuite):
    @pytest.fixture
    def bench(self, arm_bench: AgentBench) -> Bench:
        return arm_bench


def test_the_board_is_arm_and_says_that_it_is_emulated(arm_bench: AgentBench) -> None:
    device = arm_bench.reach().info.device
    assert device.machine == "aarch64" and device.emulated
    assert "asimd" in device.isa and "avx" not in device.isa


@each_model
def test_arm_and_this_machine_agree(arm_bench: AgentBench, model: KnownModel) -> None:
    pictures = pictures_for(model)
    here = LocalBench().predict(request_of(model.path), pictures)
    there = arm_bench.predict(request_of(model.path), pictures)
    assert isinstance(here, np.ndarray) and isinstance(there, np.ndarray)
    assert (here.argmax(1) == there.argmax(1)).all()
    assert np.abs(here - there).max() <= model.tolerance


def test_every_outcome_is_marked_as_emulated(arm_bench: AgentBench) -> None:
    first, second = (request_of(BY_FILE[name].path) for name in ("int8.onnx", "int8.tflite"))
    measured = arm_bench.measure(first)
    compared = arm_bench.compare(first, second, Rounds(count=1, seconds=0.02))
    assert isinstance(measured, Measurement) and measured.conditions.device.emulated
    assert isinstance(compared, Comparison) and compared.conditions.device.emulated


def _instructions(bench: AgentBench, file: str) -> int:
    found = bench.measure(request_of(BY_FILE[file].path))
    assert isinstance(found, Measurement), found
    if found.instructions is None:
        pytest.skip("no compiler for the plugin that counts instructions (Debian's gcc and libc6-dev)")
    return found.instructions


# Measured: LiteRT's medians of int8.tflite in five processes were 19,961 three times and 19,977 twice.
@each_format
def test_instruction_counts_repeat(arm_bench: AgentBench, file: str) -> None:
    first, second = (_instructions(arm_bench, file) for _ in range(2))
    assert first > 1000
    assert abs(first - second) <= 0.005 * first


def test_a_command_on_the_board_that_nobody_told_it_is_emulated(board: Board) -> None:
    environment = {name: value for name, value in board.environment().items() if name != VARIABLE}
    done = subprocess.run(
        board.command(["run", str(BY_FILE["int8.tflite"].path)]),
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert "emulated: these times are no latencies" in done.stdout
