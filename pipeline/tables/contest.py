"""Many policies on many tasks from many seeds: who finds how much, how fast."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from device_bench.errors import BadInputError
from pipeline.policy import load_policy
from pipeline.tables.curve import Curve, Point, best_known_area, curve_of, known_points, run_policy
from pipeline.tables.curve_file import CurveFile, CurveRecord, maker_of
from pipeline.tables.standings import Standings
from pipeline.tables.table_task import TableTask
from pipeline.tables.task_table import TaskTable
from pipeline.tables.trial_task import TrialTask
from pipeline.task import Budget

# How many curves are done, of how many, and which was the last.
Progress = Callable[[int, int, str], None]


class TaskSource(Protocol):
    """Where a task comes from; hashable and small, so that it can go to another process."""

    @property
    def fingerprint(self) -> str:
        """Hex digits that are the same only for tasks with the same outcomes."""
        ...

    def load(self) -> TrialTask:
        """The task itself."""
        ...

    def __hash__(self) -> int:
        """Equal sources are loaded once."""
        ...


@dataclass(frozen=True)
class TableSource:
    """A recorded table in one setting."""

    path: Path
    setting: str
    budget: Budget = field(default_factory=Budget)
    probed: bool = True

    @property
    def fingerprint(self) -> str:
        """Of the table and the setting; what policies are told does not change outcomes.

        Raises:
            BadInputError: the table cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise BadInputError(
                f"cannot read the table {self.path}: {error.strerror}; record it with `edgeloop meta-train`"
            ) from error
        return hashlib.sha256(content + self.setting.encode()).hexdigest()[:16]

    def load(self) -> TableTask:
        """The task of the table's surrogates.

        Raises:
            BadInputError: no such table or setting.
        """
        return TableTask.of(TaskTable.load(self.path), self.setting, self.budget, probed=self.probed)


@dataclass(frozen=True)
class Contest:
    """Who plays, where, and how long.

    Args:
        policies: names of `POLICIES`, or files that `edgeloop meta-train` wrote.
        seeds: every policy plays each task from the seeds 0 to `seeds` − 1.
        folder: curves are kept here.
        conditions: what else decides about proposals, such as whether effects are told; part of the key
            under which curves are kept.
    """

    sources: tuple[TaskSource, ...]
    policies: tuple[str, ...]
    seeds: int
    trials: int
    folder: Path
    conditions: str = ""

    def __post_init__(self) -> None:
        for name, value in (("seeds", self.seeds), ("trials", self.trials)):
            if value < 1:
                raise BadInputError(f"{name} must be at least 1; got {value}")
        if not self.sources or not self.policies:
            raise BadInputError("a contest needs at least one task and one policy")


@dataclass(frozen=True)
class _Game:
    source: TaskSource
    policy: str
    seed: int
    trials: int


def play(contest: Contest, jobs: int, progress: Progress) -> Standings:
    """Run every curve that is not kept yet, in `jobs` processes, and say how all compare.

    Raises:
        BadInputError: a policy or a task that is not there, or a policy that refuses a task.
    """
    for name in contest.policies:
        load_policy(name)
    makers = {name: f"{maker_of(name)}{contest.conditions}" for name in contest.policies}
    files = {source: _file_of(contest, source) for source in contest.sources}
    curves: list[Curve] = []
    games: list[_Game] = []
    for source in contest.sources:
        known = files[source].read()
        for policy in contest.policies:
            for seed in range(contest.seeds):
                found = files[source].find(known, policy, makers[policy], seed, contest.trials)
                if found is None:
                    games.append(_Game(source, policy, seed, contest.trials))
                else:
                    curves.append(found)
    total = len(curves) + len(games)
    progress(len(curves), total, "from the cache" if curves else "loading")
    for game, curve in _played(games, jobs):
        files[game.source].add(
            CurveRecord(
                policy=game.policy,
                maker=makers[game.policy],
                task=curve.task,
                seed=game.seed,
                asked=game.trials,
                points=curve.points,
            )
        )
        curves.append(curve)
        progress(len(curves), total, f"{game.policy} on {curve.task}, seed {game.seed}")
    best = dict(_best_known(source, files[source]) for source in contest.sources)
    order = {name: place for place, name in enumerate(contest.policies)}
    curves.sort(key=lambda curve: (order[curve.policy], curve.task, curve.seed))
    return Standings(tuple(curves), best, contest.trials)


def _file_of(contest: Contest, source: TaskSource) -> CurveFile:
    return CurveFile(contest.folder / f"{source.fingerprint}.jsonl")


def _best_known(source: TaskSource, file: CurveFile) -> tuple[str, float]:
    points: list[Point | None] = [found for record in file.read() for found in record.points]
    task = _loaded(source)
    return task.name, best_known_area([*points, *known_points(task)])


def _played(games: Sequence[_Game], jobs: int) -> Iterator[tuple[_Game, Curve]]:
    if jobs <= 1 or len(games) <= 1:
        for game in games:
            yield game, _play(game)
        return
    # Fork would copy torch's threads into children, where they hang.
    start = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=start, initializer=as_child)
    try:
        waiting = {pool.submit(_play, game): game for game in games}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def as_child() -> None:
    """Be a worker of a pool: with one thread, and gone when the pool's owner is, even if that was killed."""
    os.environ["OMP_NUM_THREADS"] = "1"
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_after, args=(parent,), daemon=True).start()


def _leave_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _play(game: _Game) -> Curve:
    task = _loaded(game.source)
    trials = run_policy(load_policy(game.policy), task, game.trials, game.seed)
    return curve_of(task, game.policy, game.seed, trials)


@lru_cache(maxsize=8)
def _loaded(source: TaskSource) -> TrialTask:
    return source.load()
