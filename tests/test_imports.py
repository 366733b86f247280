"""Imports point one way, stay light where they must, and print nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each room may import itself and the rooms before it.
ROOMS = ("device_bench", "pipeline", "exporters", "flows")
TOO_HEAVY_FOR_A_BOARD = {"torch", "onnx", "tensorflow", "prefect"}
# A runtime loads its own library, and only when it is asked to.
RUNTIME_LIBRARIES = {"onnxruntime", "ai_edge_litert", "tflite_runtime", "tensorflow", "torch"}

IMPORT_ALL = """
import importlib, pkgutil
for room in ("device_bench", "pipeline", "exporters", "flows"):
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, room + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def sources(room: str) -> list[Path]:
    """The room's source files."""
    found = sorted((ROOT / room).rglob("*.py"))
    assert found, f"{room} has no source files"
    return found


def imported(node: ast.AST) -> Iterator[str]:
    """Top-level packages that a statement or an `import_module("…")` call brings in."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute in this project"
        yield (node.module or "").partition(".")[0]
    elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) and node.args:
        name = node.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield name.value.partition(".")[0]


def imports_of(path: Path) -> dict[str, bool]:
    """Package → whether it is imported at module level somewhere in the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.walk(node)
    }
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        for package in imported(node):
            found[package] = found.get(package, False) or id(node) not in inside
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    later = set(ROOMS[ROOMS.index(room) + 1 :])
    wrong = {str(p.relative_to(ROOT)): sorted(later & set(imports_of(p))) for p in sources(room)}
    assert {path: packages for path, packages in wrong.items() if packages} == {}


def test_device_bench_never_imports_what_a_board_does_not_have() -> None:
    for path in sources("device_bench"):
        found = imports_of(path)
        allowed = RUNTIME_LIBRARIES if path.parent.name == "runtimes" else set()
        assert not (TOO_HEAVY_FOR_A_BOARD - allowed) & set(found), path
        eager = {package for package, at_module_level in found.items() if at_module_level}
        assert not RUNTIME_LIBRARIES & eager, f"{path} loads a runtime's library when it is imported"


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which a warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )


def test_every_module_imports_without_a_word() -> None:
    done = python(IMPORT_ALL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("module", ["device_bench.cli", "flows.cli", "pipeline.report"])
def test_what_answers_at_once_loads_nothing_heavy(module: str) -> None:
    heavy = sorted(
        TOO_HEAVY_FOR_A_BOARD | RUNTIME_LIBRARIES | {"optuna", "sklearn", "litert_torch", "sqlalchemy"}
    )
    code = f"import sys, {module}\nprint([name for name in {heavy!r} if name in sys.modules])"
    assert python(code).stdout == "[]\n"
