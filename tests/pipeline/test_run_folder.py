from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import pytest

from device_bench.errors import BadInputError, RunError
from pipeline import run_folder
from pipeline.run_folder import RunFolder
from pipeline.task import Budget

HOLDER = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


class _Noon(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "cnn-digits")


def test_two_runs_of_one_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "datetime", _Noon)
    made = [RunFolder.create(tmp_path / "deep" / "runs", "cnn-digits") for _ in range(3)]
    names = [f"20260304-120000-cnn-digits{suffix}" for suffix in ("", "-2", "-3")]
    assert [one.run_id for one in made] == names
    assert sorted(path.name for path in (tmp_path / "deep" / "runs").iterdir()) == names


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_parent_that_cannot_be_written_is_a_failure_of_the_run(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot make the run folder .*--out"):
        RunFolder.create(tmp_path / "file" / below, "label")


def test_an_earlier_run_is_known_by_its_job(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"holds no run \(no job\.json\)"):
        RunFolder.existing(folder.path)
    with pytest.raises(BadInputError, match="holds no run"):
        RunFolder.existing(tmp_path / "nowhere")
    folder.write("job.json", Budget())
    assert RunFolder.existing(folder.path).path == folder.path


def test_a_second_process_is_kept_out_until_the_first_dies(folder: RunFolder) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BadInputError, match="another process is at work in"), folder.locked():
            pass
    finally:
        holder.kill()
        holder.communicate()
    with folder.locked():
        pass


def test_a_lock_is_given_back(folder: RunFolder) -> None:
    with folder.locked(), pytest.raises(BadInputError), RunFolder(folder.path).locked():
        pass
    with folder.locked():
        pass


def test_who_only_looks_sees_whether_it_is_held_and_keeps_nobody_out(folder: RunFolder) -> None:
    assert not folder.at_work, "there is no lock yet"
    with folder.locked():
        assert folder.at_work
        assert RunFolder(folder.path).at_work, "looking takes nothing away"
    assert not folder.at_work
    with folder.locked():
        assert folder.at_work


def test_who_comes_while_another_looks_gets_in_an_instant_later(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker = (folder.path / ".lock").open("w")
    fcntl.flock(looker, fcntl.LOCK_SH)
    monkeypatch.setattr(run_folder.time, "sleep", lambda _: looker.close())
    with folder.locked():
        assert looker.closed
        assert folder.at_work


def test_a_folder_that_is_gone_is_a_failure_of_the_run(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match="cannot write in the run folder"),
        RunFolder(tmp_path / "gone").locked(),
    ):
        pass


def test_a_record_is_written_whole_and_read_back(folder: RunFolder) -> None:
    budget = Budget(max_drop=2.5, max_latency_ms=3.0)
    path = folder.write("plan.json", budget)
    text = path.read_text(encoding="utf-8")
    assert Budget.model_validate_json(text) == budget
    assert text.endswith("}\n")
    assert [entry.name for entry in folder.path.iterdir()] == ["plan.json"]


def test_a_record_on_a_full_disk_says_how_to_go_on(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder.write("plan.json", Budget())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left on device.*--resume") as caught:
        folder.write("plan.json", Budget(max_drop=9.0))
    assert str(folder.path) in str(caught.value)
    assert Budget.model_validate_json((folder.path / "plan.json").read_text()) == Budget()


def test_a_path_in_the_folder_has_its_parent(folder: RunFolder) -> None:
    path = folder.file("candidates", "abc", "plan.json")
    assert path == folder.path / "candidates" / "abc" / "plan.json"
    assert path.parent.is_dir()
    assert not path.exists()
