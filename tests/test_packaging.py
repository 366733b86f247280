"""The base install as a board gets it: made in a fresh virtual environment from a copy of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_agent import failure_of, launched, outcome_of, request_of, upload

from device_bench.protocol import FailureKind, Measurement, RuntimeName
from device_bench.wire import MeasureJob, Pairing

pytestmark = pytest.mark.venv

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("device_bench", "pipeline", "exporters", "flows")
NOT_ON_A_BOARD = {
    "torch",
    "onnx",
    "onnxruntime",
    "tensorflow",
    "prefect",
    "jax",
    "litert-torch",
    "scikit-learn",
}

IMPORT_DEVICE_BENCH = """
import importlib, pkgutil, device_bench
for module in pkgutil.walk_packages(device_bench.__path__, "device_bench."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever its exit code."""
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=1200, check=False, cwd=cwd
    )


def distributions(binaries: Path) -> set[str]:
    """What is installed in an environment."""
    listed = run(binaries / "python", "-m", "pip", "list", "--format=json", cwd=binaries)
    return {row["name"].lower().replace("_", "-") for row in json.loads(listed.stdout)}


def install(folder: Path, what: str) -> Path:
    """Make a virtual environment with `what` of this project; its `bin` folder."""
    checkout = folder / "checkout"
    # A copy, since building a wheel leaves files in the tree it is built from.
    checkout.mkdir()
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for room in ROOMS:
        shutil.copytree(ROOT / room, checkout / room, ignore=shutil.ignore_patterns("__pycache__"))
    made = run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    binaries = folder / "venv" / "bin"
    installed = run(
        binaries / "python", "-m", "pip", "install", "-q", "-c", "constraints.txt", what, cwd=checkout
    )
    assert installed.returncode == 0, installed.stderr
    shutil.rmtree(checkout)
    return binaries


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the base install and nothing else."""
    return install(tmp_path_factory.mktemp("board"), ".")


@pytest.fixture(scope="module")
def agent_board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment as the README makes it on a board."""
    return install(tmp_path_factory.mktemp("agent-board"), ".[agent,litert]")


def test_base_install_brings_no_heavy_library(board: Path) -> None:
    names = distributions(board)
    assert "edgeloop" in names
    assert not names & NOT_ON_A_BOARD
    assert run(board / "python", "-m", "pip", "check", cwd=board).returncode == 0


def test_every_module_of_device_bench_imports_without_a_word(board: Path) -> None:
    done = run(board / "python", "-W", "error", "-c", IMPORT_DEVICE_BENCH, cwd=board)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_files_that_are_no_modules_travel_along(board: Path) -> None:
    """Shipped policies, the report's templates, the bench's known models."""
    (packages,) = board.parent.glob("lib/python*/site-packages")
    own = {
        path.relative_to(ROOT)
        for folder in ("device_bench/known", "pipeline/policy/shipped", "pipeline/report/templates")
        for path in (ROOT / folder).iterdir()
        if path.is_file() and path.suffix != ".py"
    }
    assert Path("pipeline/policy/shipped/meta.safetensors") in own
    assert [str(path) for path in sorted(own) if not (packages / path).is_file()] == []


@pytest.mark.parametrize("command", ["device-bench", "edgeloop"])
def test_commands_answer_on_a_base_install(board: Path, command: str) -> None:
    done = run(board / command, "--help", cwd=board)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_missing_extra_is_named_without_a_traceback(board: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"not read before the runtime is found missing")
    done = run(board / "edgeloop", "bench", model, "--target", "local-onnxruntime", "--json", cwd=tmp_path)
    assert done.returncode in (2, 3)
    assert 'pip install \\"edgeloop[onnxruntime]\\"' in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_agent_serves_and_measures_without_torch(agent_board: Path, tmp_path: Path) -> None:
    names = distributions(agent_board)
    assert {"edgeloop", "cryptography", "ai-edge-litert"} <= names
    assert not names & NOT_ON_A_BOARD
    state = tmp_path / "state"
    command = agent_board / "device-bench"
    said = run(command, "init", "--state", state, "--name", "127.0.0.1", "--json", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    pairing = Pairing.from_line(json.loads(said.stdout)["pairing"])
    words = [command, "serve", "--state", state, "--host", "127.0.0.1", "--port", "0"]
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    model = (ROOT / "device_bench" / "known" / "float.tflite").read_bytes()
    with (
        launched([str(word) for word in words], environment, state, pairing) as agent,
        agent.client() as client,
    ):
        request = request_of(upload(client, model), RuntimeName.LITERT)
        assert isinstance(outcome_of(client, MeasureJob(request=request)), Measurement)
        missing = failure_of(client, MeasureJob(request=request_of(request.sha256, RuntimeName.ONNXRUNTIME)))
        assert missing.kind is FailureKind.RUNTIME_MISSING
        assert 'pip install "edgeloop[onnxruntime]"' in missing.message


def test_report_templates_travel_with_the_package(board: Path) -> None:
    code = (
        "from importlib.resources import files\n"
        "folder = files('pipeline') / 'report' / 'templates'\n"
        "print(sorted(file.name for file in folder.iterdir()))"
    )
    done = run(board / "python", "-c", code, cwd=board)
    source = sorted(file.name for file in (ROOT / "pipeline" / "report" / "templates").iterdir())
    assert done.stdout.strip() == str(source)
