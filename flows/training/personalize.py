"""`edgeloop personalize`: adapts a finished run's compressed models to a user's few samples."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from device_bench.errors import BadInputError
from device_bench.screen import wide_console
from device_bench.storage import write_whole
from exporters.proof import CALIBRATION_SAMPLES, Prover
from flows.compression.job import CompressJob, stored_job
from flows.screen import Screen
from flows.training.personalize_result import Personalization, PersonalizedTarget, show_personalization
from pipeline.compressor import RECIPE_FILE, Recipe, load_compressed, save_compressed
from pipeline.data import load_dataset
from pipeline.data.base import Dataset, Split
from pipeline.made_up_users import MadeUpUsers
from pipeline.personalization import Method, Personalised, paired_change, personalise
from pipeline.progress import current_reporter, reporter
from pipeline.result import RunResult
from pipeline.run_folder import RunFolder
from pipeline.target import find_target
from pipeline.user_samples import UserSamples, check_classes, parted, read_samples

KEPT, NOT_KEPT = 0, 1
FOLDER = "personalized"


@dataclass(frozen=True)
class PersonalizeOrder:
    """What to personalise: the run, the user's samples, how many are shots, and how to learn from them."""

    run: Path
    samples: Path
    shots: int
    method: Method
    data_root: Path | None = None
    seed: int = 0


def personalize_run(order: PersonalizeOrder, *, as_json: bool) -> int:
    """Adapt the chosen model of every target of the run; keep those that are not worse on the query.

    Returns:
        0 if every target's adapted model was kept, 1 if one was worse on the query and was not.

    Raises:
        BadInputError: no finished run, samples that do not fit it, or too few of them.
        RunError: an adaptation diverges, or a file does not run on its target.
    """
    if order.shots < 1:
        raise BadInputError(f"shots must be at least 1; got {order.shots}")
    result, job = _finished(order.run)
    console = wide_console(stderr=as_json)
    with RunFolder(order.run).locked(), Screen(console, order.run) as screen:
        token = current_reporter.set(screen)
        try:
            found = _personalize(order, result, job)
        finally:
            current_reporter.reset(token)
    if as_json:
        sys.stdout.write(found.model_dump_json(indent=2) + "\n")
    show_personalization(console, found, order.run / FOLDER)
    return KEPT if all(target.kept for target in found.targets.values()) else NOT_KEPT


def _finished(run: Path) -> tuple[RunResult, CompressJob]:
    """Result and job of the run in that folder."""
    if not (run / "job.json").is_file():
        raise BadInputError(f"{run} holds no run (no job.json); give a folder such as runs/<id>")
    path = run / "result.json"
    if not path.is_file():
        raise BadInputError(
            f"the run in {run} is not finished (no result.json); first: edgeloop compress --resume {run}"
        )
    try:
        return RunResult.model_validate_json(path.read_bytes()), stored_job(run)
    except (ValidationError, OSError) as error:
        raise BadInputError(
            f"{path} cannot be read ({error}); give a run of this version of edgeloop"
        ) from error


def _personalize(order: PersonalizeOrder, result: RunResult, job: CompressJob) -> Personalization:
    watch = reporter()
    watch.stage("start", 1)
    watch.advance(0, "loading torch, the data and your samples")
    root = order.data_root or (Path(job.data_root) if job.data_root else None)
    dataset = load_dataset(job.data, root, job.seed)
    check_classes(dataset)
    samples = parted(read_samples(order.samples, dataset), order.shots, order.seed, dataset.labels)
    _note_scale(samples.support, dataset)
    missing = sorted(set(range(len(dataset.labels))) - set(samples.support.y.tolist()))
    if missing:
        names = ", ".join(dataset.labels[label] for label in missing)
        watch.note(f"you gave no sample of {names}; the model may forget them")
    work = order.run / f".{FOLDER}"
    shutil.rmtree(work, ignore_errors=True)
    bench = _Bench(order, job, dataset, samples, work)
    targets = {name: bench.personalize_target(name, found.plan_id) for name, found in result.targets.items()}
    found = Personalization(
        run_id=result.run_id,
        samples=str(order.samples),
        learner=order.method.learner,
        episodes=order.method.episodes,
        steps=order.method.steps,
        shots=order.shots,
        support=len(samples.support),
        query=len(samples.query),
        seed=order.seed,
        targets=targets,
    )
    work.mkdir(exist_ok=True)
    write_whole(work / "result.json", found.model_dump_json(indent=2).encode() + b"\n")
    shutil.rmtree(order.run / FOLDER, ignore_errors=True)
    work.rename(order.run / FOLDER)
    return found


def _note_scale(support: Split, dataset: Dataset) -> None:
    """Samples that were preprocessed already are the likeliest mistake, and look like any others."""
    own, known = float(np.abs(support.x).max()), float(np.abs(dataset.train.x).max())
    if not 0.1 * known <= own <= 10 * known:
        reporter().note(
            f"your samples go up to {own:g}, the run's to {known:g}; x must be raw, not preprocessed"
        )


class _Bench:
    """What all targets of one personalisation share; models of one plan are adapted once."""

    def __init__(
        self, order: PersonalizeOrder, job: CompressJob, dataset: Dataset, samples: UserSamples, work: Path
    ) -> None:
        self._order, self._job, self._dataset = order, job, dataset
        self._samples, self._work = samples, work
        self._users = MadeUpUsers(dataset, order.shots, order.seed)
        self._adapted: dict[str, Personalised] = {}
        # The INT8 ranges of an adapted model must hold what the user's samples look like, too.
        support = samples.support
        known = dataset.train.spread(max(1, CALIBRATION_SAMPLES - len(support)))
        seen = Split(np.concatenate([known.x, support.x]), np.concatenate([known.y, support.y]))
        self._seen = replace(dataset, train=seen)
        self._prover = Prover(dataset, "")

    def personalize_target(self, name: str, plan_id: str) -> PersonalizedTarget:
        """Adapt, export, and judge by the target's own runtime; files of one that is worse are removed."""
        target = find_target(name).model_copy(update={"threads": self._job.threads})
        origin = self._order.run / "targets" / name
        recipe = Recipe.model_validate_json((origin / RECIPE_FILE).read_text(encoding="utf-8"))
        watch = reporter()
        watch.stage(f"{self._order.method.learner} for {name}", 1)
        found = self._personalised(origin, plan_id)
        if self._order.method.episodes and not found.prepared:
            watch.note(
                "preparing on made-up users did not help others of them: adapted from the run's own weights"
            )
        watch.stage(f"proof on {name}", 3)
        watch.advance(0, "exports the adapted model")
        folder = self._work / name
        folder.mkdir(parents=True)
        save_compressed(found.module, recipe, folder)
        form = target.artifact_format
        candidate = self._order.run / "candidates" / plan_id
        before = self._prover.export(load_compressed(origin), candidate, form, "int8", recipe.plan)
        prover = Prover(self._seen, before.metadata.task_fingerprint, before.metadata.units)
        after = prover.export(found.module, folder, form, "int8", recipe.plan)
        prover.export(found.module, folder, form, "float32", recipe.plan)
        watch.advance(1, "your query samples, before and after")
        query, search = self._samples.query, self._dataset.search
        change = paired_change(
            self._prover.outputs(before, target, query.x),
            self._prover.outputs(after, target, query.x),
            query.y,
            self._order.seed,
        )
        watch.advance(2, "the run's own data, before and after")
        kept = change.after >= change.before
        judged = PersonalizedTarget(
            query_before=change.before,
            query_after=change.after,
            change_low=change.low,
            change_high=change.high,
            search_before=self._prover.metric(before, target, search),
            search_after=self._prover.metric(after, target, search),
            inner_rate=found.rate,
            prepared=found.prepared,
            kept=kept,
            files=_files(folder, name) if kept else (),
        )
        if not kept:
            shutil.rmtree(folder)
        watch.advance(3)
        return judged

    def _personalised(self, origin: Path, plan_id: str) -> Personalised:
        if plan_id not in self._adapted:
            module = load_compressed(origin)
            self._adapted[plan_id] = personalise(
                module,
                self._samples.support,
                self._dataset.preprocessing,
                self._users,
                self._order.method,
                reporter().advance,
            )
        return self._adapted[plan_id]


def _files(folder: Path, name: str) -> tuple[str, ...]:
    """The files that were made for one target, as they will be found in the run's folder."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return tuple(f"{FOLDER}/{name}/{file}" for file in names)
