"""`compress/on-demand`: the compress flow, started by Prefect.

The body is that of `edgeloop compress`; here a flow run finds its folder by the flow run's id, so one that is
run again, after a retry or because its process was killed, goes on where it was.
"""

from __future__ import annotations

import os
from pathlib import Path

from prefect import State, flow, get_client, get_run_logger
from prefect.runtime import flow_run

from flows.compression.job import CompressJob, make_job, read_job, stored_job
from flows.deployments.logbook import Logger, unattended
from pipeline.report.wording import counted
from pipeline.run_folder import RunFolder

# Of the flow run's id; as much as a person can compare, and enough to tell runs apart.
ID_LETTERS = 12


@flow(name="compress")
def compress(job: CompressJob | Path) -> State[None]:
    """Compress one model within a budget, export it, and prove it on every target.

    Args:
        job: the job itself, or the path of a job file (.toml), below the folder that was deployed from.
    """
    logger = get_run_logger()
    return unattended(logger, lambda: _compressed(job, logger))


def _compressed(job: CompressJob | Path, logger: Logger) -> str:
    from flows.compression.compress import compress_flow
    from flows.fleet.slots import devices_by_prefect

    folder = folder_of(job, str(flow_run.id))
    with folder.locked(), devices_by_prefect(), get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=folder.run_id)
        logger.info("run folder: %s", folder.path.absolute())
        result = compress_flow.fn(stored_job(folder.path), str(folder.path), folder.run_id)
    verdict = "budget met" if result.budget_met else "budget missed: the best effort is kept"
    return f"{verdict}; {counted(result.trials, 'trial')}; files in {folder.path.absolute()}"


def folder_of(job: CompressJob | Path, flow_run_id: str) -> RunFolder:
    """The folder of this flow run, made and given its job when the flow run is new.

    Raises:
        BadInputError: the job cannot be read, or names what there is not.
        UnreachableError: a target's board does not answer.
    """
    from flows.compression.start import check_job, run_label, with_targets

    asked = make_job(read_job(job)) if isinstance(job, Path) else job
    if asked.data_root is None:
        # As `edgeloop compress` does; here it is the worker's.
        asked = asked.model_copy(update={"data_root": os.environ.get("EDGELOOP_DATA")})
    short = flow_run_id.replace("-", "")[:ID_LETTERS]
    earlier = next(Path(asked.out).glob(f"*-{short}"), None)
    if earlier is not None and (earlier / "job.json").is_file():
        return RunFolder(earlier)
    asked = with_targets(asked)
    check_job(asked)
    # One without a job is what a kill left that came between the two.
    label = f"{run_label(asked)}-{short}"
    folder = RunFolder.create(Path(asked.out), label) if earlier is None else RunFolder(earlier)
    folder.write("job.json", asked.from_anywhere())
    return folder
