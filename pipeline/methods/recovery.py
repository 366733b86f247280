"""Recovery: fine-tuning after compression, distilled from the original model.

SGD with Nesterov momentum; the learning rate rises linearly over the first twentieth and falls by a cosine to
zero (Loshchilov and Hutter, "SGDR", 2017). Where no layer normalises, as in a file whose batch norms were
folded, such rates run away: there the gradient is scaled down to a norm of `LARGEST_GRADIENT` at most
(Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013). On a CPU
with native bfloat16 the step runs in autocast; once the measured pace says that compiling pays back, the step
is compiled.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from pipeline.data.base import Dataset, Metric
from pipeline.methods.best_weights import BestWeights
from pipeline.methods.checkpoint import Checkpoint
from pipeline.methods.distillation import recovery_loss
from pipeline.methods.layer_methods import thin_
from pipeline.methods.matching import Matcher
from pipeline.methods.phases import trained_at
from pipeline.methods.teacher import RememberingTeacher
from pipeline.methods.views import Views
from pipeline.plan import RecoveryChoice

Progress = Callable[[float, str], None]
NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)

# A compiled step took 0.62 of the time of an eager bfloat16 step on a ResNet-20 and 30 s to make.
COMPILE_SECONDS = 35.0
COMPILE_SAVES = 0.35
PROBE_STEPS = 12
# On a busy machine one thread may win a probe by a little and lose the hour that follows.
ALONE_IS_FASTER = 0.7
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
# Without it the folded cnn and vgg of the zoo forgot the digits; with 1 and 2 they recovered less.
LARGEST_GRADIENT = 5.0
# Zeros that come step by step have all come by then; what is left of the training settles the others.
THINNED_BY, THIN_EVERY = 0.75, 16
SMALLEST_BATCH, LARGEST_BATCH = 8, 128


@dataclass(frozen=True)
class Lesson:
    """What a recovery learns from: data as views, a teacher or none, and how long.

    `checkpoint` is a file that a killed recovery goes on from; it is removed when the recovery ends.
    `exact` steps run in float32 and eagerly: what is learned depends on how numbers are rounded. `matcher`
    watches the module that is trained; `judge` tells its score on the search split, the higher the better.
    """

    dataset: Dataset
    views: Views
    teacher: RememberingTeacher | None
    choice: RecoveryChoice
    seed: int = 0
    checkpoint: Path | None = None
    exact: bool = False
    matcher: Matcher | None = None
    judge: Callable[[nn.Module], float] | None = None


@dataclass(frozen=True)
class RecoveryReport:
    """How a recovery went: its pace and how the step was run."""

    seconds: float
    images_per_second: float
    bf16: bool
    compiled: bool
    last_loss: float


def native_bf16() -> bool:
    """True if this CPU multiplies bfloat16 by itself (AVX-512 BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def recover_(module: nn.Module, lesson: Lesson, progress: Progress) -> RecoveryReport:
    """Fine-tune `module` in place and leave it in evaluation mode.

    Args:
        progress: called a few times a second with the share done (0 to 1) and a line of text.
    """
    run = _Run(module, lesson)
    module.train()
    module.to(memory_format=torch.channels_last)
    started = time.monotonic()
    first = run.resume()
    try:
        loss = _train(run, first, progress)
    finally:
        module.eval()
        run.restore_threads()
    run.clear()
    seconds = time.monotonic() - started
    pace = max(0, run.steps - first) * run.batch / max(seconds, 1e-9)
    return RecoveryReport(seconds, pace, run.bf16, run.compiled, loss)


def _train(run: _Run, first: int, progress: Progress) -> float:
    """All steps from `first` on; returns the last one's loss, NaN if none was left."""
    started, told, loss = time.monotonic(), 0.0, math.nan
    for done in range(first + 1, run.steps + 1):
        loss = run.step(done - 1)
        if done - first == PROBE_STEPS:
            run.settle_threads()
            run.compile_if_it_pays(done)
        if time.monotonic() - told > 0.25 or done == run.steps:
            told = time.monotonic()
            pace = (done - first) * run.batch / (told - started)
            progress(
                done / run.steps, f"epoch {done / run.per_epoch:.1f}, loss {loss:.3f}, {pace:.0f} samples/s"
            )
        if done % run.per_epoch == 0:
            run.end_epoch(done)
            if run.is_over():
                break
    run.keep_best()
    return loss


def batch_for(samples: int) -> int:
    """How many of so many samples a step takes."""
    return min(samples, max(SMALLEST_BATCH, min(LARGEST_BATCH, samples // 10)))


def steps_an_epoch(samples: int) -> int:
    """Whole batches of so many samples."""
    return samples // batch_for(samples)


class _Run:
    """The moving parts of one recovery."""

    def __init__(self, module: nn.Module, lesson: Lesson) -> None:
        self.module, self.lesson = module, lesson
        self.bf16 = native_bf16() and not lesson.exact
        self.compiled = False
        self.batch = batch_for(len(lesson.views))
        self.per_epoch = steps_an_epoch(len(lesson.views))
        epochs = lesson.choice.epochs
        self.steps = max(1, round(epochs * self.per_epoch)) if epochs > 0 else 0
        self._forward: Callable[[torch.Tensor], torch.Tensor] = module
        self._threads = torch.get_num_threads()
        self._paces: list[float] = []
        self._truth = torch.from_numpy(np.require(lesson.dataset.train.y, requirements=["C", "W"]))
        if lesson.dataset.metric in (Metric.ACCURACY, Metric.AUC):
            self._truth = self._truth.long()
        matcher = lesson.matcher
        # With the projections of a matcher, which are learned along.
        self._kept = module if matcher is None else nn.ModuleDict({"student": module, "matcher": matcher})
        self._names = [name for name, _ in module.named_parameters()]
        self._trained: frozenset[str] = frozenset(self._names)
        self._best = BestWeights(lesson.checkpoint, lesson.choice.patience)
        decayed = [tensor for tensor in self._kept.parameters() if tensor.ndim > 1]
        plain = [tensor for tensor in self._kept.parameters() if tensor.ndim <= 1]
        self._optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
            lr=lesson.choice.learning_rate,
            momentum=MOMENTUM,
            nesterov=True,
        )
        # Training for INT8, which is exact, goes at a small share of the rate, and norms are folded for it.
        self._clips = not lesson.exact and not any(isinstance(layer, NORMS) for layer in module.modules())
        self._checkpoint = Checkpoint(lesson.checkpoint)
        self._order = torch.empty(0, dtype=torch.long)
        self._epoch = -1

    def step(self, number: int) -> float:
        """One step of training; returns its loss."""
        began = time.monotonic()
        if len(self._paces) < PROBE_STEPS:
            # Half of the probe runs on one thread: a small model's step costs less than waking the others.
            torch.set_num_threads(1 if len(self._paces) % 2 else self._threads)
        loss = self._stepped(number)
        self._paces.append(time.monotonic() - began)
        return loss

    def _stepped(self, number: int) -> float:
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.lesson.seed * 100_003 + epoch)
            self._order, self._epoch = torch.randperm(len(self.lesson.views), generator=generator), epoch
        indices = self._order[place * self.batch : (place + 1) * self.batch]
        view = epoch % self.lesson.views.count
        inputs = self.lesson.views.batch(view, indices)
        teacher = self.lesson.teacher
        taught = None if teacher is None else teacher.answers(view, indices, inputs)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(number)
        self._open_layers(number)
        self._thin(number)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            outputs = self._forward(inputs)
        choice, data = self.lesson.choice, self.lesson.dataset
        loss = recovery_loss(outputs, taught, self._truth[indices], choice, data.metric, data.heads)
        if self.lesson.matcher is not None:
            loss = loss + choice.matching_weight * self.lesson.matcher.loss(inputs, self._truth[indices])
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self._clips:
            nn.utils.clip_grad_norm_(self._kept.parameters(), LARGEST_GRADIENT)
        self._optimizer.step()
        return float(loss.detach())

    def _open_layers(self, number: int) -> None:
        """Let those parameters have gradients that this step trains."""
        trained = trained_at(self.lesson.choice.method, self._names, number, self.steps)
        if trained != self._trained:
            self._trained = trained
            for name, tensor in self.module.named_parameters():
                tensor.requires_grad_(name in trained)

    def _thin(self, number: int) -> None:
        """Let as many weights be zero as the schedule has for this step."""
        schedule, ramp = self.lesson.choice.sparsity_schedule, max(1, int(THINNED_BY * self.steps))
        if schedule != "constant" and number <= ramp and (number % THIN_EVERY == 0 or number == ramp):
            thin_(self.module, schedule, number, ramp)

    def is_over(self) -> bool:
        """True once epochs have brought nothing for as long as the choice's patience."""
        judge = self.lesson.judge
        if judge is None or not self.lesson.choice.patience:
            return False
        self.module.eval()
        score = judge(self.module)
        self.module.train()
        return self._best.after_epoch(self.module, score)

    def keep_best(self) -> None:
        """Put the best weights back, if any were kept, and let every parameter have gradients again."""
        if self.lesson.choice.sparsity_schedule != "constant":
            thin_(self.module, "constant", 1, 1)
        self._best.restore_(self.module)
        for tensor in self.module.parameters():
            tensor.requires_grad_(True)

    def settle_threads(self) -> None:
        """Use all threads, unless one alone ran its steps much faster."""
        alone, together = self._paces[1:PROBE_STEPS:2], self._paces[2:PROBE_STEPS:2]
        torch.set_num_threads(1 if median(alone) < ALONE_IS_FASTER * median(together) else self._threads)

    def restore_threads(self) -> None:
        """As many threads as before this recovery."""
        torch.set_num_threads(self._threads)

    def compile_if_it_pays(self, done: int) -> None:
        """Compile the forward and backward pass if the time left, at the pace so far, pays it back."""
        left = (self.steps - done) * median(self._paces[:PROBE_STEPS])
        if self.lesson.exact or self.lesson.matcher is not None or self.lesson.choice.method != "full":
            # Hooks, and gradients that come and go, would be compiled again and again.
            return
        if left * COMPILE_SAVES > COMPILE_SECONDS and shutil.which("g++") is not None:
            self._forward = torch.compile(self.module)
            self.compiled = True

    def _rate(self, number: int) -> float:
        warm = max(1, self.steps // 20)
        peak = self.lesson.choice.learning_rate
        if number < warm:
            return peak * (number + 1) / warm
        return peak * 0.5 * (1 + math.cos(math.pi * (number - warm) / max(1, self.steps - warm)))

    def end_epoch(self, done: int) -> None:
        """Keep what a killed process would lose: the teacher's answers and the state of training."""
        if self.lesson.teacher is not None:
            self.lesson.teacher.keep((done // self.per_epoch - 1) % self.lesson.views.count)
        self._checkpoint.write(self._kept, self._optimizer, done)

    def resume(self) -> int:
        """Steps done before, with the state they left; 0 without a checkpoint."""
        return self._checkpoint.restore_(self._kept, self._optimizer)

    def clear(self) -> None:
        """Remove the checkpoint: what it was for is done."""
        self._checkpoint.clear()
        self._best.clear()
