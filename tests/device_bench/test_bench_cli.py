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

from device_bench import host, local, sensors, stability
from device_bench.cli import app, parse_cores
from device_bench.commands import Library
from device_bench.host import HostInfo
from device_bench.protocol import BenchRequest, Failure, FailureKind, Measurement, RuntimeName

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
        (["run", "model.pth"], ".onnx, .tflite, .pt2"),
        (["run", "model.onnx", "--runtime", "litter"], "did you mean litert"),
        (["run", "model.onnx", "--threads", "0"], "x>=1"),
        (["run", "model.onnx", "--cores", "one"], "such as 0,2-3"),
        (["run", "model.onnx", "--cores", "3-1"], "must rise"),
        (["run", "model.onnx", "--cores", "0-99999999999"], "below 8192"),
        (["run", "model.onnx", "--accelerator", "CUDA!"], "accelerator: String should match pattern"),
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


def test_info_names_runtimes_and_what_they_can_use(invoke: Invoke) -> None:
    found = HostInfo.model_validate_json(invoke("info", "--json").stdout)
    assert found.device.cpu_count >= 1
    assert {runtime.runtime for runtime in found.runtimes} == set(RuntimeName)
    litert = next(each for each in found.runtimes if each.runtime is RuntimeName.LITERT)
    assert litert.version and litert.accelerators[:2] == ("cpu", "cpu-plain")


def test_info_on_the_screen(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "describe", _onnxruntime_alone)
    monkeypatch.setattr(stability, "advice", lambda: ("governor is powersave: set performance",))
    printed = " ".join(invoke("info").stdout.split())
    for words in ("processor", "1.31.1 on cpu, cuda", "edgeloop[litert]", "advice: governor is powersave"):
        assert words in printed


def _onnxruntime_alone(name: RuntimeName) -> Library | Failure:
    if name is RuntimeName.ONNXRUNTIME:
        return Library(version="1.31.1", accelerators=("cpu", "cuda"))
    return Failure(kind=FailureKind.RUNTIME_MISSING, message=f'pip install "edgeloop[{name.value}]"')


def test_accelerator_and_cores(invoke: Invoke, tflite_folder: Path) -> None:
    core = str(min(sensors.affinity() or (0,)))
    done = invoke(
        "run", str(tflite_folder / "float.tflite"), "--json", "--accelerator", "cpu-plain", "--cores", core
    )
    found = Measurement.model_validate_json(done.stdout)
    assert found.conditions.accelerator == "cpu-plain"
    assert found.conditions.delegated_operators == 0
    assert found.conditions.affinity == (int(core),)


def test_an_accelerator_that_is_not_there_is_exit_code_3(invoke: Invoke, onnx_file: Path) -> None:
    done = invoke("run", str(onnx_file), "--accelerator", "abacus")
    assert done.exit_code == 3
    assert "there is: cpu" in done.stderr


@pytest.mark.parametrize(("text", "cores"), [("", ()), ("3", (3,)), ("0, 2-4,2", (0, 2, 3, 4))])
def test_a_list_of_cores(text: str, cores: tuple[int, ...]) -> None:
    assert parse_cores(text) == cores


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
