"""`edgeloop bench --profile`, and the shares that a run gives its policy."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from torch import nn

from device_bench.protocol import BenchRequest, Failure, FailureKind, OperatorTime, Profile, TimingPolicy
from exporters import exporter_for
from exporters.base import ArtifactMetadata
from exporters.profile import OTHER, units_of_layers
from flows.cli import app
from flows.compression.stages import _shares
from pipeline.progress import Silent
from pipeline.tracing import trace

SHORT = TimingPolicy(warmup_seconds=0.0, min_samples=8, min_seconds=0.02, max_seconds=5.0)
SHAPE = (3, 8, 8)


def bench(*arguments: object) -> Result:
    # Imported here, after flows.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.measuring.profile.BenchRequest", partial(BenchRequest, timing=SHORT))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    layers = {"first": nn.Conv2d(3, 8, 3), "second": nn.Conv2d(8, 8, 3), "flat": nn.Flatten()}
    net = nn.Sequential()
    for name, layer in {**layers, "head": nn.Linear(128, 5)}.items():
        net.add_module(name, layer)
    return net.eval()


@pytest.fixture(scope="module", params=["onnx", "tflite"])
def artifact(request: pytest.FixtureRequest, net: nn.Module, tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("profile") / f"model.int8.{request.param}"
    metadata = ArtifactMetadata(units=units_of_layers(trace(net, SHAPE)))
    samples = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
    exporter_for(request.param).export(net, path, "int8", samples, metadata)
    return path


def test_json_has_operators_and_units(artifact: Path) -> None:
    result = bench(artifact, "--profile", "--json")
    assert result.exit_code == 0, result.output
    (stored,) = json.loads(result.stdout).values()
    shares = stored.pop("unit_shares")
    found = Profile.model_validate(stored)
    assert list(shares) == ["first", "second", "head", OTHER]
    assert sum(shares.values()) == pytest.approx(1.0)
    accounted = sum(operator.ms for operator in found.operators) / found.whole_ms
    assert sum(shares[unit] for unit in ("first", "second", "head")) == pytest.approx(accounted)
    assert "unit by unit" in result.stderr


def test_files_of_others_have_operators_alone(artifact: Path, net: nn.Module, tmp_path: Path) -> None:
    foreign = tmp_path / f"foreign{artifact.suffix}"
    samples = np.zeros((1, *SHAPE), np.float32)
    exporter_for(foreign.suffix[1:]).export(net, foreign, "float32", samples, ArtifactMetadata())
    result = bench(foreign, "--profile")
    assert result.exit_code == 0, result.output
    assert "whole" in result.stdout and "unit by unit" not in result.stdout
    assert "unit_shares" not in bench(foreign, "--profile", "--json").stdout


def test_a_file_that_does_not_run(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    result = bench(broken, "--profile", "--json")
    assert result.exit_code == 3
    failure = Failure.model_validate(json.loads(result.stdout)["local-onnxruntime"])
    assert failure.kind is FailureKind.NOT_A_MODEL


def test_not_with_another_file(artifact: Path) -> None:
    result = bench(artifact, "--profile", "--compare", artifact)
    assert result.exit_code == 2
    assert "--profile" in result.stderr and "--compare" in result.stderr


def test_a_run_goes_on_without_a_profile(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Profile.model_construct(
        operators=(OperatorTime(name="", operator="Conv", ms=1.0, inputs=("x", "first.weight")),),
        whole_ms=4.0,
    )
    outcomes = {"board": told, "other": Failure(kind=FailureKind.UNSUPPORTED, message="no profiler there")}
    workbench = SimpleNamespace(
        bench=SimpleNamespace(profile=lambda module, plan: outcomes), module=net, graph=trace(net, SHAPE)
    )
    watch = Silent()
    monkeypatch.setattr("flows.compression.stages.reporter", lambda: watch)

    class Timed(SimpleNamespace):
        def timed(self, stage: str) -> Any:
            from contextlib import nullcontext

            return nullcontext()

    shares = _shares(Timed(workbench=workbench))  # type: ignore[arg-type]
    assert shares == {"board": {"first": 0.25, "second": 0.0, "head": 0.0, OTHER: 0.75}}
    assert [note for note in watch.notes if "other" in note and "no profiler there" in note] == watch.notes
    assert len(watch.notes) == 1
