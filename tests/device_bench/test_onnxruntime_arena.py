"""The arena's size, as ONNX Runtime logs it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from bench_cases import request_for, save_onnx

from device_bench.local import measure
from device_bench.protocol import Measurement
from device_bench.runtimes.onnxruntime_arena import ArenaLog

LINE = "2026-01-01 00:00:00.1 [I:onnxruntime:Default, bfc_arena.cc:{} {}\n"
RESERVE = LINE.format("281 Reserve]", "Reserving memory in BFCArena for Cpu size: 64")
TOTAL = LINE.format("208 Extend]", "Total allocated bytes: {}")


def test_the_last_total_counts_and_only_what_was_logged_since(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    try:
        os.write(descriptor, TOTAL.format(999).encode())
        log = ArenaLog(descriptor)
        assert log.readable and log.total_bytes() is None
        os.write(descriptor, (RESERVE + RESERVE).encode())
        assert log.total_bytes() == 128
        os.write(descriptor, (TOTAL.format(1000) + TOTAL.format(5000) + "other words\n").encode())
        assert log.total_bytes() == 5000
    finally:
        os.close(descriptor)


def test_a_terminal_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    try:
        log = ArenaLog(write_end)
        assert not log.readable and log.total_bytes() is None
    finally:
        os.close(read_end)
        os.close(write_end)
    assert not ArenaLog(write_end).readable  # closed by now


def test_a_measurement_tells_its_arena(tmp_path: Path) -> None:
    weight = np.zeros((1024, 1024), np.float32)
    save_onnx(tmp_path / "wide.onnx", weight, batch=2048)
    found = measure(request_for(tmp_path / "wide.onnx"))
    assert isinstance(found, Measurement)
    # The product before the ReLU is 8 MiB, and it or its copy lies in the arena.
    assert found.memory.arena_bytes is not None and found.memory.arena_bytes >= 2048 * 1024 * 4
