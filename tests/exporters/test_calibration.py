from __future__ import annotations

from pathlib import Path

import pytest
from make_believe_bench import MakeBelieveBench, formula_ms

from device_bench.errors import BadInputError, RunError
from device_bench.protocol import Failure, FailureKind, RuntimeName
from exporters.calibration import Calibrator, read_operators, summarize
from exporters.calibration_check import write_checks
from exporters.calibration_nets import write_net
from exporters.calibration_onnx_net import OnnxNetBuilder
from pipeline.latency_model.store import CalibrationFile, load_model
from pipeline.target import LOCAL_TARGETS, Target

ONNX, LITERT = LOCAL_TARGETS["local-onnxruntime"], LOCAL_TARGETS["local-litert"]
BROKEN = Failure(kind=FailureKind.CRASHED, message="died of SIGSEGV\nand more")


class StepClock:
    """A second later at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def calibrator(bench: MakeBelieveBench, target: Target = ONNX) -> Calibrator:
    return Calibrator(target, bench, lambda text: None, StepClock())


@pytest.mark.parametrize("target", [ONNX, LITERT], ids=lambda target: str(target.name))
def test_a_calibrated_model_predicts_nets_it_has_not_seen(tmp_path: Path, target: Target) -> None:
    path = tmp_path / f"{target.name}.jsonl"
    worker = calibrator(MakeBelieveBench(), target)
    file = worker.open(path, resume=False)
    worker.measure_nets(file, 100)
    file.add(file.nets[0].model_copy(update={"name": "cnn-1", "kind": "cnn", "role": "check"}))
    summary = summarize(file)
    assert summary.by_kind["all"].nets == len(file.nets) - 1 > 90
    assert summary.by_kind["all"].median < 0.05
    assert summary.by_kind["all"].spearman is not None and summary.by_kind["all"].spearman > 0.95
    assert set(summary.by_family) == {"cnn", "all"}
    assert 0.5 < summary.spread[0] < 1 < summary.spread[1] < 2
    net = tmp_path / f"unseen.{target.artifact_format}"
    (check,) = write_checks(target.artifact_format, tmp_path, 1, 5, ["cnn"])
    found = load_model(target.name, tmp_path).predict(read_operators(check.path))
    assert found.ms == pytest.approx(formula_ms(check.path), rel=0.15)
    assert not net.exists()


def test_what_is_asked_of_the_bench_is_the_targets(tmp_path: Path) -> None:
    bench = MakeBelieveBench()
    target = ONNX.model_copy(update={"threads": 3, "accelerator": "cuda"})
    worker = calibrator(bench, target)
    worker.measure_nets(worker.open(tmp_path / "x.jsonl", resume=False), 3)
    assert {(r.runtime, r.threads, r.accelerator) for r in bench.requests} == {
        (RuntimeName.ONNXRUNTIME, 3, "cuda")
    }


def test_a_killed_calibration_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "killed.jsonl"
    worker = calibrator(MakeBelieveBench(outcomes={7: KeyboardInterrupt()}))
    file = worker.open(path, resume=False)
    with pytest.raises(KeyboardInterrupt):
        worker.measure_nets(file, 100)
    assert [net.name for net in CalibrationFile.read(path).nets] == [f"net-{at}" for at in range(5)]
    bench = MakeBelieveBench()
    worker = calibrator(bench)
    resumed = worker.open(path, resume=True)
    worker.measure_nets(resumed, 10)
    names = [net.name for net in CalibrationFile.read(path).nets]
    assert names[:5] == [f"net-{at}" for at in range(5)]
    assert len(set(names)) == len(names) > 5
    # The first question only asks whether the target still is what it was.
    assert [Path(r.path).stem for r in bench.requests][:2] == ["net-0", "net-5"]


def test_a_new_calibration_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    worker = calibrator(MakeBelieveBench())
    worker.measure_nets(worker.open(path, resume=False), 5)
    assert worker.open(path, resume=False).nets == []
    assert CalibrationFile.read(path).nets == []


def test_another_runtime_cannot_be_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    calibrator(MakeBelieveBench("1.0")).open(path, resume=False)
    with pytest.raises(BadInputError, match=r"runtime '1.0', now '1.1'.*without --resume"):
        calibrator(MakeBelieveBench("1.1")).open(path, resume=True)


def test_nets_that_fail_are_left_out_and_named(tmp_path: Path) -> None:
    said: list[str] = []
    worker = Calibrator(ONNX, MakeBelieveBench(outcomes={2: BROKEN, 4: BROKEN}), said.append, StepClock())
    file = worker.open(tmp_path / "x.jsonl", resume=False)
    worker.measure_nets(file, 5)
    assert [net.name for net in file.nets] == ["net-1", "net-3"]
    assert "net-0.onnx failed: crashed: died of SIGSEGV" in said


def test_a_target_that_always_fails_ends_it_and_keeps_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    worker = calibrator(MakeBelieveBench(outcomes=dict.fromkeys(range(4, 99), BROKEN)))
    file = worker.open(path, resume=False)
    with pytest.raises(RunError, match=r"(?s)failed 5 times in a row.*--resume"):
        worker.measure_nets(file, 100)
    assert len(CalibrationFile.read(path).nets) == 2


def test_a_target_that_cannot_measure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    worker = calibrator(MakeBelieveBench())
    worker.measure_nets(worker.open(path, resume=False), 4)
    before = path.read_bytes()
    with pytest.raises(RunError, match="local-onnxruntime cannot measure: crashed"):
        calibrator(MakeBelieveBench(outcomes={1: BROKEN})).open(path, resume=False)
    assert path.read_bytes() == before


def test_targets_without_int8_files_are_refused(tmp_path: Path) -> None:
    target = Target(name="local-torch", runtime=RuntimeName.TORCH)
    with pytest.raises(BadInputError, match=r"only targets that run \.onnx or \.tflite"):
        calibrator(MakeBelieveBench(), target).open(tmp_path / "x.jsonl", resume=False)


def test_too_little_time_is_too_few_nets(tmp_path: Path) -> None:
    worker = calibrator(MakeBelieveBench())
    file = worker.open(tmp_path / "x.jsonl", resume=False)
    worker.measure_nets(file, 5)
    with pytest.raises(BadInputError, match="let the calibration run longer"):
        summarize(file)


def test_compressed_models_are_measured_once_and_never_learned_from(tmp_path: Path) -> None:
    bench = MakeBelieveBench()
    worker = calibrator(bench)
    file = worker.open(tmp_path / "x.jsonl", resume=False)
    worker.measure_checks(file, 2, 9, ["mlp", "cnn"])
    asked = len(bench.requests)
    assert len(file.of_role("check")) == (asked - 1) / 2 == 4
    assert file.of_role("train") == []
    worker.measure_checks(file, 2, 9, ["mlp", "cnn"])
    assert len(bench.requests) == asked


def test_nets_do_not_depend_on_when_they_are_written() -> None:
    assert write_net(5, OnnxNetBuilder(5)) == write_net(5, OnnxNetBuilder(5))
