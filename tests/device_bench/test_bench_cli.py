"""`device-bench`: what it prints where, its exit codes, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench_cases import QUICK

from device_bench import local
from device_bench.cli import app
from device_bench.protocol import BenchRequest, DeviceInfo, Measurement

Invoke = Callable[..., Any]


@pytest.fixture
def invoke() -> Invoke:
    # Imported here, after device_bench.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    return lambda *arguments: CliRunner().invoke(app, arguments)


@pytest.fixture(autouse=True)
def quick_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = local.measure

    def measure(request: BenchRequest) -> object:
        return whole(request.model_copy(update={"timing": QUICK}))

    monkeypatch.setattr(local, "measure", measure)


def test_the_table_has_the_figures(invoke: Invoke, onnx_file: Path) -> None:
    done = invoke("run", str(onnx_file))
    assert done.exit_code == 0, done.output
    for word in ("p50", "p90", "p99", "peak memory", "arena", "file", "governor", "onnxruntime"):
        assert word in done.stdout


def test_json_is_all_of_standard_output(invoke: Invoke, onnx_file: Path) -> None:
    done = invoke("run", str(onnx_file), "--json", "--threads", "2")
    found = Measurement.model_validate_json(done.stdout)
    assert found.conditions.threads == 2


def test_a_failure_is_json_and_exit_code_3(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "bad.tflite"
    path.write_bytes(b"nonsense" * 20)
    done = invoke("run", str(path), "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["kind"] == "not_a_model"
    assert "not_a_model" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "absent.onnx"], "no file 'absent.onnx'"),
        (["run", "model.pth"], ".onnx, .tflite"),
        (["run", "model.onnx", "--runtime", "litter"], "did you mean litert"),
        (["run", "model.onnx", "--threads", "0"], "x>=1"),
        (["rum"], "rum"),
    ],
)
def test_bad_use_is_exit_code_2_without_a_traceback(invoke: Invoke, arguments: list[str], words: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_debug_lets_the_error_through(invoke: Invoke) -> None:
    done = invoke("run", "absent.onnx", "--debug")
    assert "no file" in str(done.exception)


def test_info(invoke: Invoke) -> None:
    assert "processor" in invoke("info").stdout
    device = DeviceInfo.model_validate_json(invoke("info", "--json").stdout)
    assert device.cpu_count >= 1


def loaded_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint('\\n'.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return set(done.stdout.split())


def test_help_needs_no_heavy_library() -> None:
    assert not loaded_after("import device_bench.cli") & {"numpy", "pydantic", "psutil", "fastapi", "httpx"}


def test_the_package_needs_no_framework() -> None:
    every = (
        "import importlib, pkgutil, device_bench\n"
        "for m in pkgutil.walk_packages(device_bench.__path__, 'device_bench.'):\n"
        "    importlib.import_module(m.name)"
    )
    loaded = loaded_after(every)
    assert "numpy" in loaded
    forbidden = {
        "torch",
        "onnx",
        "tensorflow",
        "prefect",
        "onnxruntime",
        "ai_edge_litert",
        "pipeline",
        "exporters",
    }
    assert not loaded & forbidden
