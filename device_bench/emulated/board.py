"""Builds an emulated 64-bit Arm board: Debian's Python and the real aarch64 builds of what the bench needs.

Under QEMU's user emulation each program of the board is a process of this machine. It needs Debian's
packages `qemu-user`, `mmdebstrap` and, to count instructions, `gcc` with `libc6-dev`; and root once, so that
the kernel starts the board's programs by the emulator.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from device_bench.emulated import detection, instructions
from device_bench.errors import BadInputError, RunError

# The number by which a core names itself (MIDR_EL1's part number, Arm's reference manuals). Libraries choose
# their kernels by it, so the board's /proc/cpuinfo must say what the emulator emulates.
CORES: Mapping[str, str] = {"cortex-a53": "0xd03", "cortex-a72": "0xd08", "cortex-a76": "0xd0b"}
_DOTPROD = {"cortex-a76"}
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
_EXTRAS = ("agent", "onnxruntime", "litert")
_PACKAGES = "python3.11-minimal,libpython3.11-stdlib,libstdc++6,libgomp1"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# An ELF file of 64 bits, little-endian, for aarch64; the mask leaves the ABI and a bit of the type open.
_MAGIC = bytes.fromhex("7f454c460201010000000000000000000200b700")
_MASK = bytes.fromhex("ffffffffffffff00fffffffffffffffffeffffff")


@dataclass(frozen=True)
class Board:
    """Where a board lies and which core it emulates.

    Args:
        folder: holds `root` (Debian), `site` (Python packages) and the plugin that counts.
        core: a key of `CORES`.
    """

    folder: Path
    core: str = "cortex-a72"

    def __post_init__(self) -> None:
        if self.core not in CORES:
            raise BadInputError(f"core must be one of {', '.join(CORES)}; got {self.core!r}")

    @property
    def python(self) -> Path:
        """The board's interpreter; as a program of this machine it runs by the emulator."""
        return self.folder / "root/usr/bin/python3.11"

    def environment(self) -> dict[str, str]:
        """What a process of the board needs around it."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "TERM") if name in os.environ}
        found = {
            **kept,
            "QEMU_LD_PREFIX": str(self.folder / "root"),
            "QEMU_CPU": self.core,
            detection.VARIABLE: "1",
            "PYTHONPATH": str(self.folder / "site"),
        }
        plugin = self.folder / "libcount_instructions.so"
        if plugin.exists():
            counts = self.folder / "instructions"
            counts.mkdir(exist_ok=True)
            _forget_ended(counts)
            found |= {"QEMU_PLUGIN": f"{plugin},folder={counts}", instructions.VARIABLE: str(counts)}
        return found

    def command(self, words: Sequence[str]) -> list[str]:
        """`device-bench WORDS` on the board."""
        return [str(self.python), "-P", "-m", "device_bench.cli", *words]


def missing_tools() -> list[str]:
    """Debian's packages that a board cannot do without and that are not here."""
    tools = {"qemu-aarch64": "qemu-user", "mmdebstrap": "mmdebstrap"}
    return [package for program, package in tools.items() if shutil.which(program) is None]


def build(board: Board) -> None:
    """Make what is missing of a board, and bring our own code on it up to date. About 30 s the first time.

    Raises:
        BadInputError: a tool is missing, or the kernel does not start the board's programs and only root may
            make it do so.
        RunError: a tool failed; with its last words.
    """
    missing = missing_tools()
    if missing:
        raise BadInputError(
            f"an emulated board needs {' and '.join(missing)}: apt-get install the package(s)"
        )
    board.folder.mkdir(parents=True, exist_ok=True)
    _make_root(board)
    _make_site(board)
    _make_plugin(board)
    _register()


def _make_root(board: Board) -> None:
    root = board.folder / "root"
    if not board.python.exists():
        partial = board.folder / "root.part"
        shutil.rmtree(partial, ignore_errors=True)
        mode = "root" if os.geteuid() == 0 else "unshare"
        options = ["--variant=extract", f"--mode={mode}", "--arch=arm64", f"--include={_PACKAGES}"]
        _call(["mmdebstrap", *options, "bookworm", str(partial)])
        _compile(partial / "usr/lib/python3.11", partial)
        partial.rename(root)
    features = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
    if board.core in _DOTPROD:
        features += " atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
    lines = f"Features\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
    lines += f"CPU part\t: {CORES[board.core]}\nCPU revision\t: 1\n\n"
    cores = range(os.cpu_count() or 1)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text("".join(f"processor\t: {n}\n{lines}" for n in cores))


def _make_site(board: Board) -> None:
    site = board.folder / "site"
    wanted = wheels()
    record = site / "wheels.txt"
    if not record.exists() or record.read_text().split("\n") != wanted:
        partial = board.folder / "site.part"
        shutil.rmtree(partial, ignore_errors=True)
        platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
        options = ["--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:"]
        where = ["--target", str(partial), "--disable-pip-version-check"]
        _call([sys.executable, "-m", "pip", "install", "-q", *where, *platforms, *options, *wanted])
        (partial / "wheels.txt").write_text("\n".join(wanted))
        shutil.rmtree(site, ignore_errors=True)
        partial.rename(site)
    ours = Path(__file__).resolve().parent.parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.rmtree(site / ours.name, ignore_errors=True)
    shutil.copytree(ours, site / ours.name, ignore=ignored)
    _compile(site / ours.name, site)
    # What the agent is asked for: its version.
    ours_installed = site / f"edgeloop-{version('edgeloop')}.dist-info"
    ours_installed.mkdir(exist_ok=True)
    about = f"Metadata-Version: 2.1\nName: edgeloop\nVersion: {version('edgeloop')}\n"
    (ours_installed / "METADATA").write_text(about)


def wheels() -> list[str]:
    """What a board's agent needs from others, in the versions that are installed here, where they are."""
    names = set()
    for requirement in requires("edgeloop") or []:
        what, _, marker = requirement.partition(";")
        if not marker or any(f'extra == "{extra}"' in marker for extra in _EXTRAS):
            names.add(what.strip())
    return sorted(_pinned(requirement) for requirement in names)


def _pinned(requirement: str) -> str:
    name = requirement
    for mark in "<>=!~[ ":
        name = name.partition(mark)[0]
    try:
        return f"{name}=={version(name)}"
    except PackageNotFoundError:
        return requirement


def _make_plugin(board: Board) -> None:
    """Compile the plugin that counts instructions; without a compiler the board works and counts nothing."""
    plugin = board.folder / "libcount_instructions.so"
    source = Path(__file__).parent / "count_instructions.c"
    compiler = shutil.which("gcc") or shutil.which("cc")
    if plugin.exists() and plugin.stat().st_mtime >= source.stat().st_mtime:
        return
    if compiler is not None:
        flags = ["-O2", "-fPIC", "-shared", "-Wall", "-Werror"]
        _call([compiler, *flags, "-o", str(plugin), str(source)])


def _register() -> None:
    """Have the kernel start aarch64 programs by the emulator: a measurement is a child of its own."""
    if any(_starts_by_qemu(entry) for entry in _BINFMT.glob("*")):
        return
    try:
        if not (_BINFMT / "register").exists():
            _call(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)])
        interpreter = shutil.which("qemu-aarch64")
        magic, mask = ("".join(f"\\x{byte:02x}" for byte in text) for text in (_MAGIC, _MASK))
        # No flag F: the emulator must be opened anew for each program, or it takes no plugin.
        (_BINFMT / "register").write_text(f":edgeloop-aarch64:M::{magic}:{mask}:{interpreter}:")
    except (OSError, RunError) as error:
        raise BadInputError(
            "this machine does not start Arm programs by QEMU, and only root may have it do so: run this "
            f"once as root, or install qemu-user-binfmt ({error})"
        ) from error


def _starts_by_qemu(entry: Path) -> bool:
    if entry.name in ("register", "status"):
        return False
    text = entry.read_text()
    return text.startswith("enabled") and _MAGIC.hex() in text and "qemu" in text


def _compile(folder: Path, above: Path) -> None:
    """Make bytecode here, where it is fast; only the same version's is of use on the board."""
    if sys.version_info[:2] == (3, 11):
        _call([sys.executable, "-m", "compileall", "-q", "-s", str(above), "-p", "/", str(folder)])


def _forget_ended(counts: Path) -> None:
    """Remove the counts of processes that are no more; most never read their own."""
    for file in counts.iterdir():
        if not Path("/proc", file.name).exists():
            file.unlink(missing_ok=True)


def _call(words: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip()[-800:]
        raise RunError(f"{words[0]} failed with exit code {done.returncode}: {last}")
