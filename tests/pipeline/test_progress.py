from __future__ import annotations

from contextvars import copy_context

from pipeline.progress import Silent, current_reporter, reporter


def test_without_a_watcher_notes_are_kept_and_nothing_else_happens() -> None:
    def run() -> list[str]:
        reporter().stage("trials", 3)
        reporter().advance(1, "trial 1")
        reporter().best("2 ms")
        reporter().note("a note")
        return reporter().notes

    assert copy_context().run(run) == ["a note"]
    # Another context has a reporter of its own.
    assert copy_context().run(lambda: reporter().notes) == []


def test_the_watcher_of_the_context_is_told() -> None:
    watcher = Silent()

    def run() -> None:
        current_reporter.set(watcher)
        reporter().note("heard")

    copy_context().run(run)
    assert watcher.notes == ["heard"]
