from __future__ import annotations

from pathlib import Path

import pytest

from device_bench.errors import BadInputError
from flows.runs.folders import run_named
from pipeline.run_folder import JOB_FILE

FIRST, SECOND = "20261124-021101-resnet20-cifar10-jpeg", "20261124-031502-cnn-digits"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (FIRST, SECOND):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / JOB_FILE).write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return Path("runs")


@pytest.mark.parametrize("given", [FIRST, f"runs/{FIRST}", "resnet20", "20261124-02"])
def test_a_run_is_meant_by_its_folder_its_name_or_a_piece_of_it(runs: Path, given: str) -> None:
    assert run_named(Path(given)) == runs / FIRST


def test_a_piece_of_several_names_is_refused(runs: Path) -> None:
    with pytest.raises(BadInputError, match="a part of 2 runs' names"):
        run_named(Path("20261124"))


def test_what_is_no_run_names_the_nearest(runs: Path) -> None:
    with pytest.raises(BadInputError, match=f"did you mean {SECOND}"):
        run_named(Path("20261124-031502-cnn-digit5"))


def test_without_runs_here_a_path_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_named(Path("elsewhere/run")) == Path("elsewhere/run")
