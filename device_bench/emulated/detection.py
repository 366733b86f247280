"""Is the processor that this program runs on a real one?"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Mapping
from pathlib import Path

# Says so where nothing else tells, for example inside a whole emulated machine: set it to 1.
VARIABLE = "DEVICE_BENCH_EMULATED"

# e_machine of an ELF header (System V gABI, chapter 4; elf.h of Linux), by the family of processors.
_FAMILIES = {3: "x86", 62: "x86", 40: "arm", 183: "arm", 243: "riscv"}
_MACHINES = {
    "i386": "x86",
    "i686": "x86",
    "x86_64": "x86",
    "armv7l": "arm",
    "armv8l": "arm",
    "aarch64": "arm",
    "riscv64": "riscv",
}


def is_emulated(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> bool:
    """True where an emulator runs the instructions of this process.

    User emulation: the program that the kernel runs is the emulator, and that is made for another processor
    than the one we are told of. QEMU answers for /proc/self/exe itself, and not for /proc/thread-self/exe.
    A whole emulated machine gives itself away on x86, by the name of its processor; elsewhere only
    `VARIABLE` tells. A virtual machine whose instructions the real processor runs is not emulated.
    """
    if environment.get(VARIABLE, "0") not in ("", "0"):
        return True
    told = _MACHINES.get(platform.machine())
    running = _family(root / "proc/thread-self/exe")
    if told is not None and running is not None and told != running:
        return True
    return "QEMU TCG CPU" in _text(root / "proc/cpuinfo")


def _family(program: Path) -> str | None:
    """The family of processors that an ELF file is made for."""
    try:
        with program.open("rb") as file:
            header = file.read(20)
    except OSError:
        return None
    if len(header) < 20 or header[:4] != b"\x7fELF":
        return None
    order = "<" if header[5] == 1 else ">"
    return _FAMILIES.get(struct.unpack(f"{order}H", header[18:20])[0])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
