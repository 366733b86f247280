"""Telling an emulated processor, and counting instructions."""

from __future__ import annotations

import os
import platform
import struct
from importlib.metadata import version
from pathlib import Path

import pytest

from device_bench.emulated.board import Board, wheels
from device_bench.emulated.detection import VARIABLE, is_emulated
from device_bench.emulated.instructions import VARIABLE as COUNTS
from device_bench.emulated.instructions import instructions_of, open_counter
from device_bench.errors import BadInputError


def machine(root: Path, elf_machine: int, order: str = "<") -> Path:
    """A file system in which this process is a program for that machine."""
    exe = root / "proc/thread-self/exe"
    exe.parent.mkdir(parents=True)
    header = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + b"\x01" + bytes(9)
    exe.write_bytes(header + struct.pack(f"{order}HH", 3, elf_machine))
    return root


def test_this_machine_is_not_emulated() -> None:
    assert not is_emulated(environment={})


@pytest.mark.parametrize(
    ("told", "elf_machine", "emulated"),
    [
        ("aarch64", 62, True),
        ("aarch64", 183, False),
        ("aarch64", 40, False),
        ("x86_64", 62, False),
        ("x86_64", 183, True),
        ("i686", 62, False),
        ("pdp11", 62, False),
        ("x86_64", 999, False),
    ],
)
def test_an_emulator_runs_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, elf_machine: int, emulated: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: told)
    assert is_emulated(machine(tmp_path, elf_machine), {}) is emulated


def test_big_endian_headers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert is_emulated(machine(tmp_path, 183, ">"), {})


def test_what_is_no_program_tells_nothing(tmp_path: Path) -> None:
    assert not is_emulated(tmp_path, {})
    (tmp_path / "proc/thread-self").mkdir(parents=True)
    (tmp_path / "proc/thread-self/exe").write_bytes(b"#!")
    assert not is_emulated(tmp_path, {})


def test_a_whole_emulated_machine(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name\t: QEMU TCG CPU version 2.5+\n")
    assert is_emulated(tmp_path, {})


def test_the_owner_says_so(tmp_path: Path) -> None:
    assert is_emulated(tmp_path, {VARIABLE: "1"})
    assert not is_emulated(tmp_path, {VARIABLE: "0"})


def test_the_counter_reads_its_own_process(tmp_path: Path) -> None:
    file = tmp_path / str(os.getpid())
    file.write_bytes(struct.pack("=Q", 123456789012))
    counter = open_counter({COUNTS: str(tmp_path)})
    assert counter is not None and counter() == 123456789012
    assert not file.exists()


def test_nobody_counts(tmp_path: Path) -> None:
    assert open_counter({}) is None
    assert open_counter({COUNTS: str(tmp_path)}) is None
    (tmp_path / str(os.getpid())).write_bytes(b"")
    assert open_counter({COUNTS: str(tmp_path)}) is None


def test_what_counting_costs_is_taken_off() -> None:
    state = {"now": 0, "runs": 0}

    def counter() -> int:
        state["now"] += 7
        return state["now"]

    def run() -> None:
        state["runs"] += 1
        state["now"] += 1000 + (50_000 if state["runs"] == 1 else 0)

    assert instructions_of(run, counter, runs=5) == 1000


def test_an_unknown_core(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"cortex-a53.*'max'"):
        Board(tmp_path, "max")


def test_the_board_gets_what_is_installed_here() -> None:
    found = wheels()
    assert f"numpy=={version('numpy')}" in found and f"onnxruntime=={version('onnxruntime')}" in found
    assert not [name for name in found if name.startswith(("torch", "prefect", "onnx==", "pytest"))]
