"""`edgeloop bench` measures any artifact: a table for people, JSON for tools."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import TensorProto, helper, numpy_helper

from device_bench.protocol import BenchRequest, Failure, Measurement, TimingPolicy
from flows.cli import app

SHORT = TimingPolicy(warmup_seconds=0.0, min_samples=8, min_seconds=0.01, max_seconds=5.0)


def bench(*arguments: object) -> Result:
    """Run the command in this process."""
    # Imported here, after flows.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.measuring.bench.BenchRequest", partial(BenchRequest, timing=SHORT))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = x @ w as an ONNX file."""
    weight = numpy_helper.from_array(np.ones((6, 5), np.float32), "w")
    samples = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])
    answers = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [samples], [answers], [weight]
    )
    path = tmp_path_factory.mktemp("bench") / "model.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_table(artifact: Path) -> None:
    result = bench(artifact)
    assert result.exit_code == 0, result.output
    assert "local-onnxruntime" in result.stdout
    assert "local-litert" not in result.stdout, "it reads no ONNX"
    assert "p50 ms" in result.stdout
    assert "1 thread(s)" in result.stdout


def test_json_alone_on_standard_output(artifact: Path) -> None:
    result = bench(artifact, "--target", "local-onnxruntime", "--threads", 2, "--json")
    assert result.exit_code == 0, result.output
    stored = json.loads(result.stdout)
    found = Measurement.model_validate(stored["local-onnxruntime"])
    assert list(stored) == ["local-onnxruntime"]
    assert found.conditions.threads == 2
    assert len(found.samples_ns) >= SHORT.min_samples
    assert found.memory.file_bytes == artifact.stat().st_size
    assert "p50 ms" in result.stderr


def test_a_file_that_does_not_run_is_a_failure_not_a_crash(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    result = bench(broken, "--json")
    assert result.exit_code == 3
    failure = Failure.model_validate(json.loads(result.stdout)["local-onnxruntime"])
    assert failure.kind == "not_a_model"
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.onnx"], ["nowhere.onnx does not exist"]),
        (["model.pt"], [".onnx or .tflite", "'.pt'"]),
        (
            ["model.onnx", "--target", "local-litert"],
            ["local-litert runs .tflite files", "model.onnx is onnx"],
        ),
        (["model.onnx", "--target", "litert"], ["unknown target 'litert'", "local-litert"]),
        (["model.onnx", "--threads", "0"], ["threads must be at least 1", "got 0"]),
    ],
    ids=lambda value: " ".join(value) if value[0].endswith((".onnx", ".pt")) and len(value) != 2 else "",
)
def test_bad_use(
    arguments: list[str], words: list[str], artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(artifact.parent)
    Path("model.pt").write_bytes(b"")
    result = bench(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("error:") == 1
    assert [word for word in words if word not in result.stderr] == []
    assert result.stdout == ""
