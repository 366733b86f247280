"""Jobs on disk: a restart, a loss of power or a full disk forgets none."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_bench.agent import ledger as ledger_module
from device_bench.agent.ledger import Ledger, digest_of
from device_bench.errors import RunError
from device_bench.protocol import Failure, FailureKind
from device_bench.wire import JobState, MeasureJob, RemoteRequest

OUTCOME = Failure(kind=FailureKind.CRASHED, message="as the runtime said")
JOB = MeasureJob(request=RemoteRequest(runtime="onnxruntime", sha256="0" * 64))


def id_of(number: int) -> str:
    return f"{number:032x}"


def opened(folder: Path, kept: int = 10, kept_bytes: int = 1 << 20) -> Ledger:
    made = Ledger(folder, kept, kept_bytes)
    made.open()
    return made


def run(ledger: Ledger, number: int) -> None:
    ledger.finish(ledger.begin(id_of(number), digest_of(JOB)), OUTCOME)


def test_digests_tell_jobs_apart() -> None:
    other = JOB.model_copy(update={"request": JOB.request.model_copy(update={"seed": 1})})
    assert digest_of(JOB) == digest_of(MeasureJob.model_validate_json(JOB.model_dump_json()))
    assert digest_of(JOB) != digest_of(other)


def test_an_outcome_outlives_a_restart(tmp_path: Path) -> None:
    run(opened(tmp_path), 1)
    again = opened(tmp_path)
    assert id_of(1) in again
    assert again.digest(id_of(1)) == digest_of(JOB)
    status = again.outcome(id_of(1))
    assert status is not None
    assert (status.state, status.outcome) == (JobState.DONE, OUTCOME)


def test_a_restart_ends_what_was_open(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.begin(id_of(1), digest_of(JOB))
    assert first.outcome(id_of(1)) is None
    for lost in (1, 0):
        again = Ledger(tmp_path, 10, 1 << 20)
        assert again.open() == lost
        status = again.outcome(id_of(1))
        assert status is not None
        assert isinstance(status.outcome, Failure)
        assert status.outcome.kind is FailureKind.AGENT_RESTARTED


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 100])
def test_a_loss_of_power_damages_a_file(tmp_path: Path, content: bytes) -> None:
    run(opened(tmp_path), 1)
    (tmp_path / f"{id_of(1)}.json").write_bytes(content)
    (tmp_path / ".x.part").write_bytes(b"half")
    (tmp_path / "stranger.json").write_bytes(b"{}")
    again = opened(tmp_path)
    status = again.outcome(id_of(1))
    assert status is not None
    assert isinstance(status.outcome, Failure)
    assert status.outcome.kind is FailureKind.AGENT_RESTARTED
    assert again.digest(id_of(1)) is None
    assert not (tmp_path / ".x.part").exists()
    assert "stranger" not in again


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    ledger = opened(tmp_path, kept=3)
    for number in range(5):
        run(ledger, number)
    assert [number for number in range(5) if id_of(number) in ledger] == [2, 3, 4]
    assert len(list(tmp_path.iterdir())) == 3
    again = opened(tmp_path, kept=2)
    assert [number for number in range(5) if id_of(number) in again] == [3, 4]


def test_large_outcomes_are_forgotten_but_the_last(tmp_path: Path) -> None:
    ledger = opened(tmp_path, kept_bytes=1)
    run(ledger, 1)
    assert ledger.outcome(id_of(1)) is not None
    run(ledger, 2)
    assert ledger.outcome(id_of(1)) is None
    assert ledger.outcome(id_of(2)) is not None


def test_an_open_job_is_never_forgotten(tmp_path: Path) -> None:
    ledger = opened(tmp_path, kept=1)
    ledger.begin(id_of(0), digest_of(JOB))
    for number in range(1, 4):
        run(ledger, number)
    assert id_of(0) in ledger


def test_a_full_disk_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = opened(tmp_path)
    entry = ledger.begin(id_of(1), digest_of(JOB))

    def full(*_: object, **__: object) -> None:
        raise RunError("no space")

    monkeypatch.setattr(ledger_module, "write_private", full)
    status = ledger.finish(entry, OUTCOME)
    assert isinstance(status.outcome, Failure)
    assert status.outcome.kind is FailureKind.RUNTIME_ERROR
    assert "no space" in status.outcome.message
    assert ledger.outcome(id_of(1)) == status
    with pytest.raises(RunError):
        ledger.begin(id_of(2), digest_of(JOB))
    assert id_of(2) not in ledger
