"""What a flow that nobody watches says, and how it ends."""

from __future__ import annotations

import logging

import httpx
import pytest
from prefect.client.schemas.objects import StateType

from flows.deployments.logbook import unattended
from pipeline.progress import current_reporter, reporter


def test_stages_notes_and_bests_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    def body() -> str:
        watch = reporter()
        watch.stage("trials", 3)
        watch.advance(1, "trial 1 of 3")
        watch.best("trial 1: 2.00× faster")
        watch.best("trial 1: 2.00× faster")
        watch.note("one board is gone")
        assert watch.notes == ["one board is gone"]
        return "budget met"

    with caplog.at_level(logging.INFO, "test"):
        state = unattended(logging.getLogger("test"), body)
    assert (state.type, state.message) == (StateType.COMPLETED, "budget met")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "trials …"),
        ("INFO", "best so far: trial 1: 2.00× faster"),
        ("WARNING", "note: one board is gone"),
    ]
    assert current_reporter.get() is None


def test_a_server_that_goes_away_cuts_a_run_off_and_does_not_fail_it() -> None:
    def body() -> str:
        raise httpx.ConnectError("refused")

    state = unattended(logging.getLogger("test"), body)
    assert state.type == StateType.CRASHED
    assert state.message == "Prefect's server did not answer (ConnectError('refused'))"


def test_what_goes_wrong_in_the_run_is_raised() -> None:
    def body() -> str:
        raise ValueError("of the run")

    with pytest.raises(ValueError, match="of the run"):
        unattended(logging.getLogger("test"), body)
