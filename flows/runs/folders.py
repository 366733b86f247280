"""Finding runs: all of them in a folder, or one by a piece of its name."""

from __future__ import annotations

from pathlib import Path

from device_bench.errors import BadInputError, unknown_name
from flows.runs.record import RunSummary, summary
from pipeline.run_folder import JOB_FILE


def run_folders(runs: Path) -> list[Path]:
    """The folders of all runs in `runs`, by name.

    Raises:
        BadInputError: `runs` is no folder.
    """
    if not runs.is_dir():
        raise BadInputError(
            f"there is no folder {runs}; go to the folder that `edgeloop compress` was started in, or give "
            "--runs FOLDER"
        )
    return sorted(file.parent for file in runs.glob(f"*/{JOB_FILE}"))


def newest_first(runs: Path) -> list[RunSummary]:
    """Every run in `runs`, the last one that was started first."""
    return sorted(map(summary, run_folders(runs)), key=lambda run: (run.started_at, run.run_id), reverse=True)


def run_named(given: Path) -> Path:
    """The folder that is given, or the run in `runs/` here that is meant by a piece of its name.

    Raises:
        BadInputError: there is no such run, or several.
    """
    runs = Path("runs")
    return given if given.exists() or not runs.is_dir() else find_run(str(given), runs)


def find_run(name: str, runs: Path) -> Path:
    """The folder of a run.

    Args:
        name: the folder's path, its name in `runs`, the beginning of that name, or any part of it that no
            other run's name has.

    Raises:
        BadInputError: there is no such run, or several.
    """
    if (Path(name) / JOB_FILE).is_file():
        return Path(name)
    names = {path.name: path for path in run_folders(runs)}
    if name in names:
        return names[name]
    for fits in (str.startswith, str.__contains__):
        found = [known for known in names if fits(known, name)]
        if len(found) == 1:
            return names[found[0]]
        if found:
            raise BadInputError(
                f"{name!r} is a part of {len(found)} runs' names: {', '.join(found)}; write more of it"
            )
    raise unknown_name("run", name, names)
