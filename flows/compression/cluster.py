"""Candidates spread over a Dask cluster: built, judged and exported by its workers, measured from here.

Every candidate is a Prefect task on the cluster. A worker that dies loses nothing but time: Dask gives what
it was at to another. Workers need edgeloop installed, and the run's weights and data under the same paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from prefect import task
from prefect.cache_policies import NO_CACHE

from device_bench.errors import MissingExtraError, RunError
from exporters.remote_candidates import CandidateSource, Judged, Prepared, prepare
from pipeline.plan import CompressionPlan
from pipeline.target_book import LOCAL

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture

CONNECT_SECONDS = 30.0


@task(name="candidate", task_run_name="candidate {plan.plan_id}", cache_policy=NO_CACHE, persist_result=False)
def candidate(source: CandidateSource, plan: CompressionPlan, judged: Judged) -> Prepared:
    """Build, judge and export one candidate on a worker."""
    return prepare(source, plan, judged)


class Cluster:
    """A Dask cluster at work for one run.

    Args:
        scheduler: its address, tcp://HOST:PORT.
        source: what workers rebuild the run's workbench from.

    Raises:
        MissingExtraError: prefect-dask is not installed.
        RunError: nobody answers there, or it has no workers.
    """

    def __init__(self, scheduler: str, source: CandidateSource) -> None:
        try:
            from distributed import Client
            from prefect_dask import DaskTaskRunner
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "prefect_dask", "dask") from error
        self.scheduler, self._source = scheduler, source
        try:
            with Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False) as client:
                self.workers = len(client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, ValueError) as error:
            raise RunError(
                f"no Dask scheduler answers at {scheduler} ({error}); start one with `dask scheduler`, and "
                "workers with `dask worker`, or leave --runner out"
            ) from error
        if not self.workers:
            raise RunError(
                f"the Dask cluster at {scheduler} has no workers; start some with `dask worker {scheduler}` "
                "on machines that have edgeloop, the weights and the data"
            )
        self._runner: Any = DaskTaskRunner(address=scheduler)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._runner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def prepared(self, plans: Sequence[CompressionPlan], judged: Judged) -> Iterator[Prepared]:
        """The candidates of `plans` in their order.

        Where a target is this machine, none is given out before all are made: workers on it would disturb
        what is measured.

        Raises:
            RunError: a candidate could not be made, on any worker.
        """
        futures = [
            self._runner.submit(candidate, {"source": self._source, "plan": plan, "judged": judged})
            for plan in plans
        ]
        if any(target.where == LOCAL for target in self._source.targets):
            for future in futures:
                future.wait()
        yield from (self._result(future) for future in futures)

    def _result(self, future: PrefectFuture[Prepared]) -> Prepared:
        try:
            made: Prepared = future.result()
        except Exception as error:
            raise RunError(
                f"a candidate could not be made on the cluster at {self.scheduler}: {error}; look whether "
                "its workers have edgeloop, the weights and the data under the same paths as here"
            ) from error
        return made
