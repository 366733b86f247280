"""Profiles: every operator is there and accounted for. Nothing here depends on how long anything took."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench_cases import request_for
from rich.console import Console

from device_bench import local
from device_bench.cli import app
from device_bench.profile_table import show_profile
from device_bench.profiling import Breakdown, trimmed_mean
from device_bench.protocol import BenchRequest, Failure, FailureKind, OperatorTime, Profile
from device_bench.runtimes.litert_profile import _fused_until, _short
from device_bench.runtimes.tflite_cut import Operator, TfliteFile


def _profile(path: Path, **settings: object) -> Profile:
    found = local.profile(request_for(path).model_copy(update=settings))
    assert isinstance(found, Profile), found
    assert found.whole_ms > 0
    total = sum(operator.ms for operator in found.operators)
    assert found.other_ms == pytest.approx(found.whole_ms - total, abs=1e-9)
    return found


def test_onnx_operators_have_the_names_of_the_file(tflite_folder: Path) -> None:
    found = _profile(tflite_folder / "float.onnx")
    assert found.method == "profiler"
    kinds = [operator.operator for operator in found.operators]
    assert "Conv" in kinds and "Gemm" in kinds
    read = [name for operator in found.operators for name in operator.inputs]
    # The convolution's are laid out anew under other names.
    assert {"0.weight", "0.bias", "4.weight", "4.bias"} <= set(read)
    assert found.operators[-1].outputs
    assert {operator.where for operator in found.operators} == {"CPUExecutionProvider"}


def test_onnx_operators_without_names_are_found(onnx_file: Path) -> None:
    found = _profile(onnx_file)
    assert found.operators[-1].outputs == ("y",)
    assert "w" in found.operators[0].inputs


@pytest.mark.parametrize("name", ["float.tflite", "int8.tflite"])
@pytest.mark.parametrize("accelerator", ["cpu", "cpu-plain"])
def test_every_operator_of_a_tflite_file_is_there(tflite_folder: Path, name: str, accelerator: str) -> None:
    found = _profile(tflite_folder / name, accelerator=accelerator)
    assert found.method == "single operators"
    expected = TfliteFile((tflite_folder / name).read_bytes()).operators()
    kinds = [kind for operator in found.operators for kind in operator.operator.split("+")]
    assert kinds == [operator.kind for operator in expected]
    assert found.operators[-1].outputs == expected[-1].outputs
    if accelerator == "cpu-plain":
        assert {operator.where for operator in found.operators} == {"plain kernels"}
    else:
        assert "XNNPACK" in {operator.where for operator in found.operators}


def test_what_is_no_model_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "bad.tflite"
    path.write_bytes(b"nonsense" * 20)
    found = local.profile(request_for(path))
    assert isinstance(found, Failure) and found.kind is FailureKind.NOT_A_MODEL


def test_torch_has_no_profile(tflite_folder: Path) -> None:
    found = local.profile(request_for(tflite_folder / "float.pt2"))
    assert isinstance(found, Failure) and found.kind is FailureKind.UNSUPPORTED
    assert "onnxruntime and litert" in found.message


def test_what_is_fused_is_one_piece() -> None:
    pad = Operator("PAD", ("x", "amounts"), ("padded",))
    conv = Operator("CONV_2D", ("padded", "weight"), ("made",))
    relu = Operator("RELU", ("made",), ("y",))
    add = Operator("ADD", ("y", "y"), ("z",))
    assert _fused_until([pad, conv, relu, add], 0) == 3
    assert _fused_until([conv, relu, add], 0) == 2
    assert _fused_until([relu, add], 0) == 1
    also_reads = Operator("ADD", ("padded", "y"), ("z",))
    assert _fused_until([pad, conv, relu, also_reads], 0) == 1


def test_a_name_is_the_path_of_the_last_fused_operator() -> None:
    net = "a.ChannelLastIOWrapper/b.Net_wrapped"
    name = f"{net}/c.ReLU_relu;;{net}/c.Block_0/d.Conv2d_conv1;1"
    assert _short(name) == "Block_0/Conv2d_conv1"
    assert _short("serving_default_output:0") == "serving_default_output:0"


def _breakdown(*ms: float) -> Breakdown:
    operators = tuple(OperatorTime(name="n", operator="o", ms=each) for each in ms)
    return Breakdown(operators, whole_ms=1.0, method="profiler", notes=("a note",))


@pytest.mark.parametrize(
    ("ms", "words"), [((0.5, 0.3), "20% less"), ((0.9, 0.4), "30% more"), ((0.5, 0.45), None)]
)
def test_a_large_rest_is_said(ms: tuple[float, ...], words: str | None) -> None:
    warnings = _breakdown(*ms).warnings()
    assert warnings[0] == "a note"
    assert (words is None and len(warnings) == 1) or (words is not None and words in warnings[1])


def test_interrupted_runs_are_left_out() -> None:
    assert trimmed_mean([2, 4, 3, 3, 3, 3, 3, 3, 3, 9000]) == 3
    assert trimmed_mean([7]) == 7


@pytest.fixture
def profile(onnx_file: Path) -> Profile:
    operators = tuple(
        OperatorTime(name=name, operator="Conv", ms=ms) for name, ms in (("quick", 0.1), ("slow[0]", 0.6))
    )
    conditions = _profile(onnx_file).conditions
    return Profile(
        operators=operators,
        whole_ms=1.0,
        other_ms=0.3,
        method="profiler",
        conditions=conditions,
        warnings=("[bold]loud",),
    )


@pytest.mark.parametrize(("slowest_first", "order"), [(False, "quick slow"), (True, "slow quick")])
def test_the_table_shows_shares_and_the_rest(profile: Profile, slowest_first: bool, order: str) -> None:
    console = Console(file=io.StringIO(), width=80)
    show_profile("file", profile, slowest_first=slowest_first, console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    first, second = order.split()
    assert text.index(first) < text.index(second) < text.index("other") < text.index("whole")
    for words in ("10.0%", "60.0%", "30.0%", "100.0%", "slow[0]", "warning: [bold]loud"):
        assert words in text


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    from typer.testing import CliRunner

    whole = local.profile

    def quick(request: BenchRequest) -> object:
        return whole(request.model_copy(update={"timing": request_for(Path(request.path)).timing}))

    monkeypatch.setattr(local, "profile", quick)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_command_line(invoke: Callable[..., Any], onnx_file: Path) -> None:
    done = invoke("run", str(onnx_file), "--profile", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["method"] == "profiler"
    shown = invoke("run", str(onnx_file), "--profile", "--sort")
    assert "other" in shown.stdout and "MatMul" in shown.stdout
    alone = invoke("run", str(onnx_file), "--sort")
    assert alone.exit_code == 2 and "--profile" in alone.stderr
