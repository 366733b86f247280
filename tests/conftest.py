"""A PostgreSQL and silence for all tests; and, at the end of a run, how many cases the fuzzing tried.

They are counted also when several processes ran the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fuzz_counts import COUNTS
from postgres_server import PostgresServer, running_postgres

from pipeline.progress import current_reporter

_KEY = "fuzz_counts"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real server; skips where it is not installed."""
    with running_postgres() as server:
        yield server


@pytest.fixture(autouse=True)
def nobody_watches() -> Iterator[None]:
    """What one test's code told its reporter is not told in the next."""
    token = current_reporter.set(None)
    yield
    current_reporter.reset(token)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that ran a part of the tests hands its counts on."""
    handed_on = getattr(session.config, "workeroutput", None)
    if handed_on is not None:
        handed_on[_KEY] = dict(COUNTS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The process that started the others takes their counts; one that died has none."""
    COUNTS.update(getattr(node, "workeroutput", {}).get(_KEY, {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each kind of cases."""
    if COUNTS:
        terminalreporter.section("fuzzing")
        for what, number in sorted(COUNTS.items()):
            terminalreporter.write_line(f"{number:6d} cases: {what}")
        terminalreporter.write_line(f"{sum(COUNTS.values()):6d} cases in all")
