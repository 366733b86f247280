from __future__ import annotations

from pathlib import Path

import pytest
from known_costs import DEVICE, HEADER, random_net

from device_bench.errors import BadInputError
from device_bench.protocol import Conditions, RuntimeName
from pipeline.latency_model.accuracy import errors_of
from pipeline.latency_model.records import Summary
from pipeline.latency_model.store import CalibrationFile, calibration_path, load_model, mismatch

GOLDEN = Path(__file__).parents[2] / "golden" / "calibration_v1.jsonl"


def filled(path: Path, count: int) -> CalibrationFile:
    file = CalibrationFile.create(path, HEADER)
    for number in range(count):
        file.add(random_net(number))
    return file


def test_what_was_added_is_read_again(tmp_path: Path) -> None:
    path = calibration_path("board-onnxruntime", tmp_path)
    written = filled(path, 3)
    read = CalibrationFile.read(path)
    assert (read.header, read.nets) == (written.header, written.nets)
    assert read.summary() is None


def test_the_first_version_stays_readable() -> None:
    read = CalibrationFile.read(GOLDEN)
    assert read.header == HEADER
    assert read.nets == [random_net(0), random_net(1).model_copy(update={"role": "check"})]
    assert (len(read.of_role("train")), len(read.of_role("check"))) == (1, 1)


def test_the_golden_file_is_what_is_written_today(tmp_path: Path) -> None:
    path = tmp_path / "now.jsonl"
    file = CalibrationFile.create(path, HEADER)
    file.add(random_net(0))
    file.add(random_net(1).model_copy(update={"role": "check"}))
    assert path.read_bytes() == GOLDEN.read_bytes()


def test_a_line_cut_short_by_a_kill_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    filled(path, 3)
    path.write_bytes(path.read_bytes()[:-40])
    read = CalibrationFile.read(path)
    assert [net.name for net in read.nets] == ["net-0", "net-1"]
    read.add(random_net(2))
    assert [net.name for net in CalibrationFile.read(path).nets] == ["net-0", "net-1", "net-2"]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_damaged_line_is_named(tmp_path: Path, line: int) -> None:
    path = tmp_path / "damaged.jsonl"
    filled(path, 3)
    lines = path.read_bytes().split(b"\n")
    lines[line] = b'{"name": 1}'
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(BadInputError, match=rf"line {line + 1}, is damaged .* calibrate again"):
        CalibrationFile.read(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"\x80\x04."])
def test_what_is_no_calibration_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "none.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match="line 1, is damaged"):
        CalibrationFile.read(path)


def test_a_target_never_calibrated_says_how(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="edgeloop calibrate --target pi4"):
        load_model("pi4", tmp_path)


def test_a_model_uses_what_cross_validation_found(tmp_path: Path) -> None:
    file = filled(calibration_path("board", tmp_path), 40)
    nothing = errors_of([1.0], [1.0])
    file.save_summary(Summary(spread=(0.8, 1.3), by_kind={"all": nothing}, by_family={}))
    assert load_model("board", tmp_path).spread == (0.8, 1.3)
    again = CalibrationFile.create(file.path, HEADER)
    assert again.summary() is None
    assert len(CalibrationFile.read(again.path.with_suffix(".before.jsonl")).of_role("train")) == 40


def test_a_damaged_summary_is_refused(tmp_path: Path) -> None:
    file = filled(calibration_path("board", tmp_path), 1)
    file.path.with_suffix(".summary.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"is damaged .*delete it"):
        file.summary()


def test_another_runtime_or_processor_is_named() -> None:
    conditions = Conditions(
        device=DEVICE,
        runtime=RuntimeName.ONNXRUNTIME,
        runtime_version="1.31.1",
        accelerator="cpu",
        threads=1,
    )
    assert mismatch(HEADER, conditions) is None
    newer = conditions.model_copy(
        update={"runtime_version": "1.32.0", "device": DEVICE.model_copy(update={"cpu_model": "A76"})}
    )
    said = mismatch(HEADER, newer)
    assert said is not None
    assert "processor 'A72', now 'A76'; runtime '1.31.1', now '1.32.0'" in said
    assert "edgeloop calibrate --target board-onnxruntime" in said
