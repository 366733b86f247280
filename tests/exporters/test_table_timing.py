from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from device_bench.errors import BadInputError, RunError
from device_bench.protocol import Failure, FailureKind
from exporters.table_timing import PASSES, Files, _timed, retime
from pipeline.tables.order import target_of
from pipeline.tables.task_table import TaskTable
from pipeline.target import Target

SETTING = "local-onnxruntime@1"
TABLES = Path(__file__).parents[2] / "policies" / "tables"
TARGET = target_of(SETTING)
RATIOS = np.linspace(0.2, 1.1, 20)
WHOLE: Files = {"onnx": Path("whole")}
FILES: list[Files] = [{"onnx": Path(str(row))} for row in range(len(RATIOS))]


@dataclass
class DriftingMachine:
    """Plain INT8 takes 2 ms at first; every reading makes the machine slower by a thousandth of that.

    `busy`: numbers of readings during which it does other work, too.
    """

    busy: frozenset[int] = frozenset()
    fails: frozenset[str] = frozenset()
    read: list[str] = field(default_factory=list)

    def p50_ms(self, files: Files, target: Target) -> float | Failure:
        name = files["onnx"].name
        self.read.append(name)
        if name in self.fails:
            return Failure(kind=FailureKind.CRASHED, message="gone")
        speed = 2.0 * (1.0 + 0.001 * len(self.read))
        share = 1.0 if name == "whole" else RATIOS[int(name)]
        return float(speed * share * (3.0 if len(self.read) in self.busy else 1.0))


def timed(machine: DriftingMachine) -> tuple[float, np.ndarray]:
    return _timed(machine, TARGET, WHOLE, FILES, lambda share: None)  # type: ignore[arg-type]


def test_a_machine_that_grows_slower_changes_no_ratio() -> None:
    base, ratios = timed(DriftingMachine())
    np.testing.assert_allclose(ratios, RATIOS, rtol=1e-3)
    assert 2.0 < base < 2.5


def test_other_work_during_one_pass_changes_no_ratio() -> None:
    first_pass = frozenset(range(2, 8))
    _, ratios = timed(DriftingMachine(first_pass))
    np.testing.assert_allclose(ratios, RATIOS, rtol=5e-3)


def test_every_pass_takes_another_order() -> None:
    machine = DriftingMachine()
    timed(machine)
    plans = [name for name in machine.read if name != "whole"]
    passes = [plans[start : start + len(FILES)] for start in range(0, len(plans), len(FILES))]
    assert len(passes) == PASSES
    assert len({tuple(one) for one in passes}) == PASSES
    assert all(sorted(one) == sorted(passes[0]) for one in passes)


def test_a_plan_that_does_not_run_has_no_latency_and_spoils_no_other() -> None:
    _, ratios = timed(DriftingMachine(fails=frozenset({"3"})))
    assert np.isnan(ratios[3])
    np.testing.assert_allclose(np.delete(ratios, 3), np.delete(RATIOS, 3), rtol=1e-3)


def test_without_plain_int8_there_is_nothing_to_hold_against() -> None:
    with pytest.raises(RunError, match="plain INT8 does not run on local-onnxruntime: gone"):
        timed(DriftingMachine(fails=frozenset({"whole"})))


@pytest.fixture
def short_table(tmp_path: Path) -> Path:
    """Ten rows of a recorded table, timed nowhere but on LiteRT, with two threads."""
    whole = TaskTable.load(TABLES / "mlp-digits.safetensors")
    kept = "local-litert@2"
    header = whole.header.model_copy(update={"settings": {kept: whole.header.settings[kept]}})
    latency = {kept: whole.latency_ms[kept][:10]}
    path = tmp_path / "mlp-digits.safetensors"
    TaskTable(header, whole.options[:10], whole.accuracy[:10], latency).save(path)
    return path


def test_a_table_is_timed_on_a_target_that_it_did_not_know(
    short_table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    before = TaskTable.load(short_table)
    told: list[float] = []
    retime(short_table, (SETTING,), lambda share, text: told.append(share))
    after = TaskTable.load(short_table)
    assert set(after.header.settings) == {SETTING, "local-litert@2"}
    assert (after.latency_ms[SETTING] > 0).all()
    assert after.header.settings[SETTING].base_latency_ms > 0
    np.testing.assert_array_equal(after.accuracy, before.accuracy)
    np.testing.assert_array_equal(after.latency_ms["local-litert@2"], before.latency_ms["local-litert@2"])
    assert told == sorted(told)


def test_a_setting_that_names_no_target_leaves_the_table_as_it_was(short_table: Path) -> None:
    content = short_table.read_bytes()
    with pytest.raises(BadInputError, match="no-such-board"):
        retime(short_table, ("no-such-board@1",), lambda share, text: None)
    assert short_table.read_bytes() == content
