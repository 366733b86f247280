"""What Prefect's pages show of a run: how far it is, its trials, and at the end what it found.

Three artifacts of the flow run: `progress-<run>` and `trials-<run>`, which change while the run goes on, and
`result-<run>`. Telling of a run never ends it: where Prefect's server cannot be reached, the run says so once
and goes on; whether it can go on without its server is the flow's affair.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

import httpx
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException

from device_bench.errors import BadInputError
from flows.compression.job import CompressJob
from flows.compression.milestones import Milestones
from flows.compression.run_page import run_page
from flows.compression.trial_rows import trial_rows
from pipeline.experience import TrialLog
from pipeline.progress import Reporter, current_reporter, reporter
from pipeline.result import RunResult

logger = logging.getLogger(__name__)

LEAST_SECONDS = 2.0
# Telling takes no more than one part in so many of a run's time.
PATIENCE = 20.0
# Until a server that did not answer is asked again.
SULK_SECONDS = 30.0
OUT_OF_REACH = (httpx.HTTPError, PrefectException)


def artifact_key(kind: str, run_id: str) -> str:
    """A key as Prefect wants it: lower-case letters, digits and dashes."""
    return f"{kind}-" + "".join(letter if letter.isalnum() else "-" for letter in run_id.lower())


class Publication:
    """A reporter that hands everything on to another one, and tells Prefect's pages as well.

    Args:
        inner: who was told until now.
        job: what was asked for.
        folder: the run's folder, whose trials are shown.
        client: of Prefect's server.
        clock: seconds, for how often it tells.
    """

    def __init__(
        self,
        inner: Reporter,
        job: CompressJob,
        folder: Path,
        client: SyncPrefectClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.notes = inner.notes
        self._inner = inner
        self._job = job
        self._log = TrialLog(folder / "trials.jsonl")
        self._run_id = folder.name
        self._client = client
        self._clock = clock
        self._milestones = Milestones(job)
        self._stage, self._text, self._best = "", "", ""
        self._progress_id: UUID | None = None
        self._trials_id: UUID | None = None
        self._bytes_shown = 0
        self._next = 0.0
        self._warned = False

    def stage(self, name: str, total: float) -> None:
        """A stage begins."""
        self._inner.stage(name, total)
        self._milestones.stage(name, total)
        self._stage, self._text = name, ""
        self._tell()

    def advance(self, done: float, text: str = "") -> None:
        """`done` steps of it are finished."""
        self._inner.advance(done, text)
        self._milestones.advance(done)
        self._text = text
        self._tell()

    def best(self, text: str) -> None:
        """The best found so far, in words."""
        self._inner.best(text)
        self._best = text
        self._tell()

    def note(self, text: str) -> None:
        """A note, for the inner one alone: it goes into the report."""
        self._inner.note(text)

    def open(self) -> None:
        """Make the artifacts; the flow run they belong to is the current one."""
        with self._in_reach():
            what = f"{self._job.model} on {self._job.data}"
            self._progress_id = create_progress_artifact(
                0.0, key=artifact_key("progress", self._run_id), description=what
            )
            self._trials_id = create_table_artifact(
                [], key=artifact_key("trials", self._run_id), description=f"Trials of {what}"
            )

    def conclude(self, result: RunResult, folder: Path) -> None:
        """Show what the run found."""
        self._milestones.finish()
        self._stage, self._text = "finished", "budget met" if result.budget_met else "budget missed"
        self._next = 0.0
        self._tell()
        with self._in_reach():
            create_markdown_artifact(
                run_page(result, folder),
                key=artifact_key("result", self._run_id),
                description=f"{result.model} on {result.data}: {self._text}",
            )

    def _tell(self) -> None:
        """Bring the artifacts up to date, unless that was done just now."""
        started = self._clock()
        if started < self._next or self._progress_id is None or self._trials_id is None:
            return
        with self._in_reach():
            said = ": ".join(filter(None, [self._stage, self._text]))
            best = f". Best so far: {self._best}" if self._best else ""
            progress = ArtifactUpdate(description=said + best, data=round(self._milestones.percent, 1))
            self._client.update_artifact(self._progress_id, progress)
            self._tell_trials(self._trials_id)
        ended = self._clock()
        self._next = max(self._next, ended + max(LEAST_SECONDS, PATIENCE * (ended - started)))

    def _tell_trials(self, artifact: UUID) -> None:
        path = self._log.path
        size = path.stat().st_size if path.exists() else 0
        if size == self._bytes_shown:
            return
        # A damaged log ends the run elsewhere, with its own words.
        with suppress(BadInputError):
            rows = trial_rows(self._log.read(), self._job.targets)
            self._client.update_artifact(artifact, ArtifactUpdate(data=json.dumps(rows)))
            self._bytes_shown = size

    @contextmanager
    def _in_reach(self) -> Iterator[None]:
        """A server that does not answer is a warning, and is left alone for a while."""
        try:
            yield
        except OUT_OF_REACH as error:
            self._next = self._clock() + SULK_SECONDS
            if not self._warned:
                self._warned = True
                logger.warning("Prefect's pages do not show this run now: %s", error or type(error).__name__)


@contextmanager
def published(job: CompressJob, folder: Path) -> Iterator[Publication]:
    """Within the block, what the current flow run reports goes to Prefect's pages, too."""
    with get_client(sync_client=True) as client:
        publication = Publication(reporter(), job, folder, client)
        publication.open()
        token = current_reporter.set(publication)
        try:
            yield publication
        finally:
            current_reporter.reset(token)
