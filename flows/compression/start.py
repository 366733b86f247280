"""From a job to a finished run: the folder, the screen, Prefect, and the exit code."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from pydantic import ValidationError

from device_bench.errors import BadInputError, unknown_name
from device_bench.screen import wide_console
from flows.compression.job import CompressJob, make_job, stored_job
from flows.compression.outcome import show_result
from flows.compression.releasing import release_station
from flows.compression.sources import SOURCE_FILE
from flows.deployments.profile import tidy_after_kill
from flows.deployments.standing import Office
from flows.interrupts import CtrlC
from flows.screen import Screen
from flows.server import TemporaryServer
from pipeline.progress import current_reporter
from pipeline.result import RunResult
from pipeline.run_folder import RunFolder

DONE, BUDGET_MISSED = 0, 1
SCHEDULER_SECONDS = 10.0
# All that a run's folder holds before the run has done anything.
CLUSTER = ("runner", "scheduler")
# Where a run goes on may be another place than where it began.
RESUMED = {"data_root", *CLUSTER}
UNTOUCHED = {"job.json", ".lock", SOURCE_FILE}
PREFECT_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Errors reach the screen by the run's own message; here they would come with a traceback each.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    # What the library logs within a run belongs to the run's log.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "pipeline,exporters,device_bench",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def run_compress(job: CompressJob, *, as_json: bool) -> int:
    """Start a run of `job` in a new folder; returns the exit code."""
    job = with_targets(job)
    check_job(job)
    folder = RunFolder.create(Path(job.out), run_label(job))
    job = job.from_anywhere()
    folder.write("job.json", job)
    try:
        return _run(job, folder, as_json)
    except BadInputError:
        _discard_if_untouched(folder.path)
        raise


def resume_compress(path: Path, given: Mapping[str, object], *, as_json: bool) -> int:
    """Go on with the run in `path`; returns the exit code.

    Raises:
        BadInputError: there is no run, another process is at it, or flags were given that it cannot change.
    """
    fixed = given.keys() - RESUMED
    if fixed:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(fixed))
        raise BadInputError(
            f"--resume goes on with the job as it was; it cannot change {names}: leave them out"
        )
    folder = RunFolder.existing(path)
    job = stored_job(path)
    if given.keys() & set(CLUSTER):
        asked = make_job({name: given[name] for name in CLUSTER if name in given})
        job = job.model_copy(update={name: getattr(asked, name) for name in CLUSTER})
    root = given.get("data_root")
    if root is not None and (job.data_root is None or not Path(job.data_root).is_dir()):
        job = job.model_copy(update={"data_root": root}).from_anywhere()
    done = _finished(folder.path, job)
    return _run(job, folder, as_json) if done is None else _show_finished(done, folder.path, as_json)


def _finished(folder: Path, job: CompressJob) -> RunResult | None:
    """What the run found, if it found something for every target; its test split is not opened again."""
    try:
        found = RunResult.model_validate_json((folder / "result.json").read_bytes())
    except (OSError, ValidationError):
        return None
    return found if set(job.targets) <= set(found.targets) else None


def _show_finished(result: RunResult, folder: Path, as_json: bool) -> int:
    console = wide_console(stderr=as_json)
    from flows.compression.bookkeeping import fill_store_from
    from pipeline.database import default_store
    from pipeline.experience import ExperienceStore

    # What another store, or a process that was killed at the very end, does not have yet.
    fill_store_from(folder, ExperienceStore(default_store()))
    if result.budget_met:
        release_station(folder)
    console.print(f"{folder.name} is finished; there is nothing to go on with", highlight=False)
    if as_json:
        sys.stdout.write(result.model_dump_json(indent=2) + "\n")
    show_result(console, result, folder)
    return exit_code(result)


def check_job(job: CompressJob) -> None:
    """Look up every name of the job before anything heavy is loaded.

    Raises:
        BadInputError: a name is not known, a file is not there, a target is emulated, or nothing can be kept
            where EDGELOOP_STORE or EDGELOOP_ARTIFACTS says.
        UnreachableError: a target's board does not answer.
    """
    from pipeline.data import DATASETS, NPZ, OWN_FILE
    from pipeline.database import Database, default_store
    from pipeline.fleet.shelf import Shelf
    from pipeline.policy import load_policy
    from pipeline.target import find_target
    from pipeline.target_bench import check_real
    from pipeline.zoo import MODELS

    if job.data.endswith(NPZ):
        if not Path(job.data).is_file():
            raise BadInputError(f"data file {job.data} does not exist; give the path of an .npz with x and y")
    elif ":" not in job.data and job.data not in DATASETS:
        raise unknown_name("data set", job.data, [*DATASETS, OWN_FILE, "module:callable"])
    _check_model(job.model, job.weights)
    for teacher in job.teachers:
        _check_model(teacher.model, teacher.weights)
        if teacher.model in MODELS and teacher.weights is None:
            raise BadInputError(
                f"teacher {teacher.model} has no weights of its own to teach by; give "
                f"{teacher.model}=WEIGHTS.safetensors"
            )
    for name in job.targets:
        target = find_target(name)
        if not target.compressible:
            raise BadInputError(
                f"target {name} runs .{target.artifact_format} files, for which edgeloop cannot compress; "
                "give a target that runs ONNX Runtime or LiteRT"
            )
        if job.targets.count(name) > 1:
            raise BadInputError(f"target {name} is given {job.targets.count(name)} times; give it once")
    if job.plan is None:
        load_policy(job.policy)
    if job.scheduler is not None:
        _check_scheduler(job.scheduler)
    Shelf()
    Database(default_store()).close()
    for name in job.targets:
        check_real(find_target(name))


def _check_scheduler(address: str) -> None:
    """Nothing, if something listens there; what it is shows later."""
    found = urlsplit(address)
    try:
        socket.create_connection((found.hostname or "", found.port or 0), SCHEDULER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, and give "
            "the address that it prints"
        ) from error


def _check_model(source: str, weights: str | None) -> None:
    from pipeline.keras_import import check_keras_extra
    from pipeline.model_source import FILES, is_keras, is_path
    from pipeline.zoo import MODELS

    if is_path(source):
        if not Path(source).exists():
            raise BadInputError(f"model file {source} does not exist; give the path of an ONNX or Keras file")
        if is_keras(source):
            check_keras_extra()
    elif ":" not in source and source not in MODELS:
        raise unknown_name("model", source, [*MODELS, "module:callable", *FILES])
    if weights is not None and not Path(weights).is_file():
        raise BadInputError(
            f"weights file {weights} does not exist; give a .safetensors file, or leave it out"
        )


def run_label(job: CompressJob) -> str:
    """What a run's folder says of its job: model and data."""
    return "-".join(Path(part.replace(":", "-")).stem for part in (job.model, job.data))


def with_targets(job: CompressJob) -> CompressJob:
    """The same job with a bare device replaced by all of its targets that models can be compressed for."""
    from pipeline.target import find_targets

    names: list[str] = []
    for name in job.targets:
        found = find_targets(name)
        names += [target.name for target in found if target.compressible or len(found) == 1]
    return job.model_copy(update={"targets": tuple(names)})


def _run(job: CompressJob, folder: RunFolder, as_json: bool) -> int:
    console = wide_console(stderr=as_json)
    with folder.locked(), Screen(console, folder.path) as screen:
        token = current_reporter.set(screen)
        try:
            screen.stage("start", 1)
            screen.advance(0, "loading Prefect, torch and the converters")
            server = prepare_prefect()
            from exporters.litert_library import warm_up
            from flows.compression.compress import compress_flow

            # The converter takes seconds to import; Prefect's server takes as long to start.
            Thread(target=warm_up, name="warm-up", daemon=True).start()
            if server is not None:
                server.wait_ready()
            with CtrlC():
                result = compress_flow(job, str(folder.path), folder.run_id)
        except BadInputError:
            raise
        except BaseException as error:
            command = f"edgeloop compress --resume {shlex.quote(str(folder.path))}"
            error.add_note(f"what was finished is kept; go on with: {command}")
            raise
        finally:
            current_reporter.reset(token)
    if as_json:
        sys.stdout.write(result.model_dump_json(indent=2) + "\n")
    show_result(console, result, folder.path)
    return exit_code(result)


def _discard_if_untouched(path: Path) -> None:
    """Remove a run's folder in which nothing was done: what it was asked for cannot be used."""
    if {file.name for file in path.iterdir()} <= UNTOUCHED:
        shutil.rmtree(path)


def exit_code(result: RunResult) -> int:
    """0 if the budget is met on every target, 1 if the best found misses it."""
    return DONE if result.budget_met else BUDGET_MISSED


def prepare_prefect() -> TemporaryServer | None:
    """Prefect's settings for a run from the command line, before its flows are imported.

    Where Prefect is told of no API (PREFECT_API_URL or its profile), a temporary server is started for this
    process, which talks to nobody. Prefect's own lines stay off the screen (the run draws its own) and go to
    the server, where its pages show them.

    Returns:
        the server that was started now and may not be ready yet, or None.
    """
    for name, value in PREFECT_SETTINGS.items():
        os.environ.setdefault(name, value)
    from prefect import context
    from prefect.settings import PREFECT_HOME

    # One that was killed is still what Prefect's profile tells of.
    tidy_after_kill(Office(Path(PREFECT_HOME.value())))
    if context.root_settings_context().settings.api.url is not None:
        return None
    server = TemporaryServer()
    for name in ("no_proxy", "NO_PROXY"):
        # A proxy for the way out must not be asked for the way to this machine.
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))
    os.environ["PREFECT_API_URL"] = server.api_url
    # Prefect read its settings when it was imported; its own threads see only these.
    context.GLOBAL_SETTINGS_CONTEXT = context.root_settings_context()
    return server
