"""`edgeloop report`: a run's report, written anew from the run's files, and opened where asked."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

from device_bench.errors import BadInputError
from flows.compression.report_files import write_run_report
from flows.runs.folders import find_run, newest_first
from flows.runs.record import RunState, resume_command, stored_result
from pipeline.result import RunResult


def report_run(name: str | None, runs: Path, *, opened: bool) -> int:
    """Write the report of a run, the newest finished one where none is named.

    Prints the report's path on standard output.

    Raises:
        BadInputError: there is no such run, or it is not finished.
    """
    path = _newest_finished(runs) if name is None else find_run(name, runs)
    report = write_run_report(path, finished(path))
    sys.stdout.write(f"{report}\n")
    if opened and not webbrowser.open(report.absolute().as_uri()):
        sys.stderr.write("no browser was found here; open that file with one; it needs no other\n")
    return 0


def finished(path: Path) -> RunResult:
    """What the run in `path` found.

    Raises:
        BadInputError: it is not finished, or its result is damaged.
    """
    result = stored_result(path)
    if result is None:
        raise BadInputError(
            f"run {path.name} is not finished, and has no result yet; go on with: {resume_command(path)}"
        )
    return result


def _newest_finished(runs: Path) -> Path:
    """The folder of the newest run with a result; newer ones without are named."""
    known = newest_first(runs)
    for run in known:
        if run.state is RunState.FINISHED:
            return Path(run.folder)
        sys.stderr.write(f"{run.run_id} is {run.state} and left out\n")
    raise BadInputError(
        f"no run in {runs} is finished; `edgeloop runs list` says how to go on with those there are"
        if known
        else f"there are no runs in {runs} yet; `edgeloop compress` makes one"
    )
