"""The ledger tells whose process lives, and keeps those whose process ended until they are looked after."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.deployments import ledger as ledger_module
from flows.deployments.ledger import Ledger, LedgerEntry

SIGN_IN = """
import sys
from pathlib import Path
from flows.deployments.ledger import Ledger

with Ledger(Path(sys.argv[1])).signed_in("one"):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_an_entry_outlives_its_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs")
    assert ledger.entries() == []
    command = [sys.executable, "-c", SIGN_IN, str(ledger.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        entry = LedgerEntry(flow_run_id="one", pid=process.pid)
        assert ledger.entries() == [(entry, True)]
        process.kill()
        process.wait()
    assert ledger.entries() == [(entry, False)]


def test_deaths_are_counted_over_processes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for deaths in range(3):
        with ledger.signed_in("one"):
            pass
        ((entry, alive),) = ledger.entries()
        assert (entry.deaths, alive) == (deaths, False)
        ledger.count_death(entry)
    ledger.strike("one")
    assert list(tmp_path.iterdir()) == []
    ledger.strike("one")


def test_only_the_process_that_was_told_to_end_is_noted_and_until_the_next_signs_in(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.signed_in("one"):
        ledger.note_ending({os.getpid() + 1})
        ((before, _),) = ledger.entries()
        ledger.note_ending({os.getpid()})
        ((after, alive),) = ledger.entries()
    assert (before.told_to_end, after.told_to_end, alive) == (False, True, True)
    with ledger.signed_in("one"):
        ((anew, _),) = ledger.entries()
    assert not anew.told_to_end


def test_one_process_a_flow_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "TRIES", 2)
    ledger = Ledger(tmp_path)
    with ledger.signed_in("one"):
        with pytest.raises(BlockingIOError), ledger.signed_in("one"):
            pytest.fail("two processes are at work on one flow run")
        with ledger.signed_in("two"):
            assert [alive for _, alive in ledger.entries()] == [True, True]


def test_an_entry_of_another_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"schema_version": 99}')
    assert Ledger(tmp_path).entries() == []
    assert (tmp_path / "old.json").exists()
