"""`edgeloop compress --plan`: every kind of method in one plan, from the command line to the files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pipeline.compressor import load_compressed
from pipeline.result import RunResult
from pipeline.trained_range import read_ranges

PLAN = """
calibration = "mse"
importance = "taylor"

[units."features.0"]
keep_ratio = 0.5

[layers."features.3"]
low_rank = { kind = "channel", energy = 0.8 }

[layers.head]
precision = "float32"
sparsity = 0.3

[recovery]
matching = "features"
method = "layer_wise"
learning_rate = 0.005
patience = 1
quantization_epochs = 1
"""


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    edgeloop: Callable[..., subprocess.CompletedProcess[str]],
    weights: Callable[[str], Path],
) -> Path:
    place = tmp_path_factory.mktemp("plan")
    (place / "plan.toml").write_text(PLAN)
    done = edgeloop(
        *("compress", "--model", "cnn", "--weights", weights("cnn"), "--plan", "plan.toml", "--robustness"),
        *("--target", "local-onnxruntime", "--recovery-epochs", 2, "--max-drop", 100, "--out", "runs"),
        cwd=place,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (place / "runs").iterdir()
    return found


def test_the_plan_is_what_the_target_gets(run: Path) -> None:
    result = RunResult.model_validate_json((run / "result.json").read_text())
    plan = result.targets["local-onnxruntime"].plan
    assert result.trials == 1
    assert plan.units["features.0"].keep_ratio == 0.5
    low_rank = plan.layers["features.3"].low_rank
    assert low_rank is not None and low_rank.rank is not None and low_rank.energy is None
    assert result.targets["local-onnxruntime"].chosen.float_operators


def test_the_module_is_pruned_factorised_and_thinned(run: Path) -> None:
    module = load_compressed(run)
    assert module.get_submodule("features.0").weight.shape[0] == 16
    assert isinstance(module.get_submodule("features.3"), torch.nn.Sequential)
    head = module.get_submodule("head").weight
    assert float((head == 0).float().mean()) == pytest.approx(0.3, abs=0.01)


def test_the_trained_ranges_are_those_of_the_file(run: Path) -> None:
    (candidate,) = [path.parent for path in run.glob("candidates/*/ranges.json")]
    ranges = read_ranges(candidate)
    assert len(ranges) > 5
    graph = onnx.load(candidate / "model.int8.onnx").graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantizing = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    scales = np.array([float(values[node.input[1]]) for node in quantizing])
    # The head is float, so nothing behind what goes into it is stored in steps.
    trained = [(each.high - each.low) / 255 for each in ranges[:-1]]
    assert all(np.min(np.abs(scales / scale - 1)) < 1e-5 for scale in trained), (trained, scales)


def test_robustness_is_in_the_result_and_in_the_report(run: Path) -> None:
    result = RunResult.model_validate_json((run / "result.json").read_text())
    rows = {(row.kind, row.strength): row for row in result.targets["local-onnxruntime"].robustness}
    clean, attacked = rows["clean", 0.0], rows["pgd", 8 / 255]
    assert attacked.result < clean.result
    assert {kind for kind, _ in rows} >= {"fgsm", "gaussian noise", "contrast"}
    assert all(np.isfinite((row.original, row.result)).all() for row in rows.values())
    page = (run / "report.html").read_text()
    assert "On samples that were tampered with" in page and "ε 8/255" in page


def test_a_finished_run_is_not_proved_again(
    run: Path, edgeloop: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    done = edgeloop("compress", "--resume", run, cwd=run.parents[1])
    assert done.returncode == 0
    assert "is finished; there is nothing to go on with" in " ".join(done.stdout.split())
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_a_plan_and_a_search_exclude_each_other(
    run: Path, edgeloop: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = edgeloop("compress", "--plan", "plan.toml", "--trials", 5, cwd=run.parents[1])
    assert done.returncode == 2
    assert "a plan is applied as it is" in done.stdout + done.stderr


def test_a_plan_that_does_not_fit_names_the_layer_before_anything_is_trained(
    run: Path, edgeloop: Callable[..., subprocess.CompletedProcess[str]], weights: Callable[[str], Path]
) -> None:
    place = run.parents[1]
    (place / "bad.json").write_text(
        json.dumps({"layers": {"head": {"low_rank": {"kind": "svd", "rank": 11}}}})
    )
    done = edgeloop(
        *("compress", "--model", "cnn", "--weights", weights("cnn"), "--plan", "bad.json"),
        *("--target", "local-onnxruntime", "--out", "bad"),
        cwd=place,
    )
    assert done.returncode == 2
    assert not list((place / "bad").glob("*")), "a run that can never be gone on with is left behind"
    assert "rank 11 is above the matrix's, which is 10" in " ".join((done.stdout + done.stderr).split())
