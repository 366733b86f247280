"""What a run keeps: trials, probes, clock. All of it is in the run's folder and comes back on resume."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from device_bench.storage import write_whole
from exporters.candidates import ShapeBench
from exporters.proof import Prover
from flows.compression.job import CompressJob
from flows.compression.sources import seen_from
from flows.compression.stage_seconds import CLOCK_FILE, StageSeconds, stage_seconds
from pipeline.answer_file import ANSWERS_FILE, AnswerFile
from pipeline.compressor import Recipe
from pipeline.data.base import Split
from pipeline.experience import ExperienceStore, Trial, TrialLog
from pipeline.methods.recovery import steps_an_epoch
from pipeline.methods.teacher import RememberingTeacher
from pipeline.methods.views import Views
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, Effect, PolicyContext
from pipeline.policy.outputs import Outputs
from pipeline.reward import Baseline
from pipeline.search import Workbench, with_effects
from pipeline.selection import SEEN_DROP_COUNTS, Yardstick, rehearsal_share
from pipeline.target import Target
from pipeline.task import ModelSpec
from pipeline.task_record import ProbeRecord, TaskRecord

TASK_FILE, PROBES_FILE = "task.json", "probes.jsonl"


@dataclass
class Session:
    """One run at work.

    `trials`, `effects` and `baselines` grow as the run goes on; everything in them is on disk first.
    `shares`: of plain INT8's latency, by target and unit. `record`: of the task, once the probes are made.
    `taught_by`: what recoveries learn from: the original, or it and further teachers together.
    """

    job: CompressJob
    folder: Path
    workbench: Workbench
    spec: ModelSpec
    bench: ShapeBench
    prover: Prover
    log: TrialLog
    store: ExperienceStore
    weights_are_foreign: bool
    taught_by: nn.Module
    trials: list[Trial] = field(default_factory=list)
    effects: dict[Change, Effect] = field(default_factory=dict)
    baselines: list[Baseline] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    record: TaskRecord | None = None
    fair_score: float = 0.0
    _test: Split | None = None
    _views: Views | None = None
    _teacher: RememberingTeacher | None = None

    @property
    def present(self) -> tuple[Target, ...]:
        """The targets whose boards have not gone away in this process."""
        return tuple(target for target in self.workbench.task.targets if target.name not in self.bench.gone)

    def lacks_present(self, latency_ms: Mapping[str, float]) -> bool:
        """True if a present target has no latency there: its board was gone when the others were measured."""
        return any(target.name not in latency_ms for target in self.present)

    def open_books(self) -> None:
        """Read what an earlier process of this run finished."""
        latest = {trial.number: trial for trial in self.log.read()}
        self.trials = [latest[number] for number in sorted(latest)]
        fill_store(self.store, self.folder.name, self.workbench.task.fingerprint, self.trials)
        if self._probes.exists():
            # A torn last line is what kill -9 leaves; it goes, and that probe is made again.
            content = self._probes.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                write_whole(self._probes, whole)
            for line in whole.splitlines():
                record = ProbeRecord.model_validate_json(line)
                self.effects[record.change] = record.effect
        self.seconds = stage_seconds(self.folder)

    def keep_trial(self, trial: Trial) -> None:
        """Write a trial to the log and the store; one of the same number is replaced."""
        self.log.append(trial)
        self.store.add(self.folder.name, self.workbench.task.fingerprint, trial)
        self.trials = sorted([t for t in self.trials if t.number != trial.number] + [trial], key=_number)

    def is_recovered(self, number: int) -> bool:
        """True if the trial of that number was recovered, by this process or an earlier one."""
        return any(trial.number == number and trial.accuracy_recovered is not None for trial in self.trials)

    def trials_known(self, decided: Collection[int]) -> list[Trial]:
        """The trials as they were known when only those in `decided` had been recovered."""
        return [
            trial if trial.number in decided else trial.model_copy(update={"accuracy_recovered": None})
            for trial in self.trials
        ]

    def keep_probe(self, change: Change, effect: Effect, answers: Outputs) -> None:
        """Write a probe to the folder: what it answered first, since the other says that it was made."""
        kept = AnswerFile(self.folder / ANSWERS_FILE)
        if not kept.path.exists():
            kept.start(self.workbench.probed_outputs({}))
        kept.add(change, answers)
        with self._probes.open("a", encoding="utf-8") as file:
            file.write(ProbeRecord(change=change, effect=effect).model_dump_json() + "\n")
        self.effects[change] = effect

    def told(self, context: PolicyContext) -> PolicyContext:
        """The context with all that the probes found out."""
        outputs = AnswerFile(self.folder / ANSWERS_FILE).read(self.workbench.dataset.metric)
        return with_effects(context, self.effects, outputs)

    def keep_task(self, context: PolicyContext) -> None:
        """Write what is known of the task, probes included, to the folder and to the store."""
        self.record = TaskRecord.of(self.workbench.task, context, self.effects)
        write_whole(self.folder / TASK_FILE, self.record.model_dump_json().encode())
        self.store.add_task(self.record)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the seconds of the block towards `stage`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started
            write_whole(
                self.folder / CLOCK_FILE, StageSeconds(seconds=self.seconds).model_dump_json().encode()
            )

    def recipe(self, plan: CompressionPlan, folder: Path) -> Recipe:
        """What rebuilds the module of `plan` from files in `folder`, a folder of this run."""
        return Recipe(model=seen_from(self.spec, self.folder, folder), plan=plan)

    def views(self) -> Views:
        """The training samples as augmented views, made when first asked for."""
        if self._views is None:
            self._views = Views(self.workbench.dataset, self.job.seed)
        return self._views

    def teacher(self, bf16: bool) -> RememberingTeacher:
        """The run's teacher, which remembers what it was asked; all recoveries share it."""
        if self._teacher is None:
            cache = self.folder / "cache"
            self._teacher = RememberingTeacher(self.taught_by, len(self.views()), cache, bf16=bf16)
        return self._teacher

    def test(self) -> Split:
        """The test split, opened when the proof begins and not before."""
        if self._test is None:
            self._test = self.workbench.dataset.test.open()
        return self._test

    @property
    def search_was_seen(self) -> bool:
        """True where others trained the weights on a public set of which the search split is a part."""
        return self.weights_are_foreign and self.workbench.dataset.search_is_public

    def verdict_split(self) -> Split:
        """What recovered candidates are judged on: samples that the original knows no better than they do.

        That is the search split, unless the original was trained on it and the candidates were not: then it
        is as many training samples, which both have seen.
        """
        dataset = self.workbench.dataset
        if not self.search_was_seen:
            return dataset.search
        return dataset.train.spread(len(dataset.search))

    def score(self, module: nn.Module) -> float:
        """The metric of a module on the verdict split, the higher the better."""
        metric = self.workbench.dataset.metric
        found = self.workbench.judge(module, self.verdict_split())
        return found if metric.higher_is_better else -found

    def yardstick(self, context: PolicyContext) -> Yardstick:
        """What recovered candidates are held against."""
        counts = SEEN_DROP_COUNTS if self.search_was_seen else 1.0
        metric = self.workbench.dataset.metric
        return Yardstick(metric, context.float_accuracy, self.fair_score, counts, self.rehearsal_share)

    @property
    def rehearsal_share(self) -> float:
        """The share of a recovery that a rehearsal is."""
        return rehearsal_share(self.job.recovery_epochs, steps_an_epoch(len(self.workbench.dataset.train.x)))

    @property
    def _probes(self) -> Path:
        return self.folder / PROBES_FILE


def fill_store(store: ExperienceStore, run_id: str, fingerprint: str, trials: Iterable[Trial]) -> None:
    """Add what the store lacks of a run: the log is written first, and a kill may come in between."""
    stored = {trial.number: trial for trial in store.trials(run_id=run_id)}
    for trial in trials:
        if stored.get(trial.number) != trial:
            store.add(run_id, fingerprint, trial)


def fill_store_from(folder: Path, store: ExperienceStore) -> None:
    """Add what the store lacks of the finished run in the folder: its task and its trials."""
    record = TaskRecord.model_validate_json((folder / TASK_FILE).read_bytes())
    store.add_task(record)
    latest = {trial.number: trial for trial in TrialLog(folder / "trials.jsonl").read()}
    fill_store(store, folder.name, record.fingerprint, [latest[number] for number in sorted(latest)])


def _number(trial: Trial) -> int:
    return trial.number
