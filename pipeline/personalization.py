"""Personalisation: a compressed model's weights adapted to a user's few labelled samples by the MAML family.

    prepare: meta-train on made-up users (`episodes` of them), starting from the run's weights
    choose:  prepared or own weights, and the inner rate, by made-up users that were held out
    adapt:   the learner's inner steps on the user's support set

Batch norms stay in evaluation mode throughout: a handful of samples would make bad statistics, which are
folded into the INT8 file, so the running ones are kept, and scale and shift move like other weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from device_bench.errors import BadInputError, RunError, unknown_name
from pipeline.data.base import Metric, Preprocessing, Split
from pipeline.evaluation import score
from pipeline.learning.anil import ANIL
from pipeline.learning.fomaml import FOMAML
from pipeline.learning.inner import Batch, InnerLoop, Loss, MetaLearner, Parameters, TaskBatch, detached
from pipeline.learning.maml import MAML
from pipeline.learning.reptile import Reptile
from pipeline.made_up_users import MadeUpUsers

Progress = Callable[[float, str], None]

LEARNERS = ("maml", "fomaml", "reptile", "anil")
OUTER_RATE, REPTILE_RATE = 1e-3, 0.5
USERS_PER_STEP = 4
# A confident network that meets samples of another kind has gradients that would throw it far away.
LONGEST_GRADIENT = 1.0
# Preparing takes fewer inner steps than adapting, as in the paper (its section 5.1): they cost each user.
PREPARING_STEPS, PREPARING_RATE = 5, 0.1
# Tried on made-up users that were not trained on; the best by their query sets is used.
RATES = (0.01, 0.03, 0.1)
USERS_TO_CHOOSE_BY = 3
RESAMPLES = 4000
SHARE_OF_PREPARING = 0.6  # of the time until the user's own samples are adapted to, about


@dataclass(frozen=True)
class Method:
    """How to personalise: the learner's name, made-up users to prepare on, and inner steps."""

    learner: str = "reptile"
    episodes: int = 80
    steps: int = 50

    def __post_init__(self) -> None:
        if self.learner not in LEARNERS:
            raise unknown_name("learner", self.learner, LEARNERS)
        if self.episodes < 0:
            raise BadInputError(f"episodes must be at least 0; got {self.episodes}")
        if self.steps < 1:
            raise BadInputError(f"steps must be at least 1; got {self.steps}")


@dataclass(frozen=True)
class Personalised:
    """The adapted module and how it came about.

    `rate`: the inner rate that was chosen. `losses`: the made-up users' query loss at each outer step.
    `prepared`: False where the run's own weights served held-out made-up users better than prepared ones.
    """

    module: nn.Module
    rate: float
    prepared: bool
    losses: tuple[float, ...]


def personalise(
    module: nn.Module,
    support: Split,
    preprocessing: Preprocessing,
    users: MadeUpUsers,
    method: Method,
    progress: Progress,
) -> Personalised:
    """A copy of `module` (evaluation mode) prepared on made-up users, then adapted to `support`.

    Args:
        progress: called with the share done (0 to 1) and a line of text.

    Raises:
        RunError: every inner rate diverges, or a loss is not finite.
    """
    # Fused attention has no second derivative; the plain formula has.
    with sdpa_kernel(SDPBackend.MATH):
        loss = module_loss(module)
        parameters = detached(dict(module.named_parameters()))
        head = head_names(module, users.dataset.input_shape)
        preparing = InnerLoop(PREPARING_RATE, PREPARING_STEPS, longest=LONGEST_GRADIENT)
        learner = learner_of(method.learner, preparing, head)
        share = SHARE_OF_PREPARING if method.episodes else 0.0
        prepared, losses = _prepared(
            learner, parameters, loss, users, method.episodes, lambda done, text: progress(share * done, text)
        )
        starts = [parameters, prepared] if losses else [parameters]
        learners = {
            rate: learner_of(method.learner, InnerLoop(rate, method.steps, longest=LONGEST_GRADIENT), head)
            for rate in RATES
        }
        held_out = [users.draw(method.episodes + number) for number in range(USERS_TO_CHOOSE_BY)]
        start, rate = _best(
            starts, learners, loss, held_out, lambda done, text: progress(share + (1 - share) * done, text)
        )
        progress(1.0, f"adapting to {len(support)} samples at rate {rate:g}")
        given = (torch.from_numpy(preprocessing.apply(support.x)), torch.from_numpy(support.y))
        adapted = learners[rate].adapt(starts[start], given, loss)
    result = copy.deepcopy(module)
    result.load_state_dict(adapted, strict=False)
    return Personalised(result.eval(), rate, start == 1, losses)


def module_loss(module: nn.Module) -> Loss:
    """Cross entropy of the module's outputs as a function of its parameters; buffers are as they are."""
    buffers = detached(dict(module.named_buffers()))

    def loss(parameters: Parameters, batch: Batch) -> Tensor:
        inputs, truth = batch
        found: Tensor = cross_entropy(functional_call(module, parameters | buffers, (inputs,)), truth)
        return found

    return loss


def head_names(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Parameters of the layer that runs last of all that have any: found by running it, not by its name."""
    ran: list[str] = []
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, layer in module.named_modules()
        if any(True for _ in layer.parameters(recurse=False))
    ]
    try:
        with torch.no_grad():
            module(torch.zeros(2, *input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise BadInputError("the model has no layer with weights; there is nothing to personalise")
    last = module.get_submodule(ran[-1])
    prefix = f"{ran[-1]}." if ran[-1] else ""
    return tuple(prefix + name for name, _ in last.named_parameters(recurse=False))


def learner_of(name: str, inner: InnerLoop, head: tuple[str, ...]) -> MetaLearner:
    """The learner of that name over this inner loop."""
    makers: Mapping[str, Callable[[], MetaLearner]] = {
        "maml": lambda: MAML(inner, OUTER_RATE),
        "fomaml": lambda: FOMAML(inner, OUTER_RATE),
        "reptile": lambda: Reptile(inner, REPTILE_RATE),
        "anil": lambda: ANIL(inner, head, OUTER_RATE),
    }
    return makers[name]()


def _best(
    starts: Sequence[Parameters],
    learners: Mapping[float, MetaLearner],
    loss: Loss,
    users: Sequence[TaskBatch],
    progress: Progress,
) -> tuple[int, float]:
    """Which start and which inner rate serve these made-up users best, by their query sets."""
    found: dict[tuple[int, float], float] = {}
    pairs = list(product(range(len(starts)), learners))
    for done, (start, rate) in enumerate(pairs):
        progress(done / len(pairs), f"choosing the inner rate: {rate:g}")
        try:
            total = 0.0
            for user in users:
                adapted = learners[rate].adapt(starts[start], user.support, loss)
                with torch.no_grad():
                    total += float(loss(adapted, user.query))
        except RunError:
            continue  # steps of this rate diverge
        if isfinite(total):
            found[start, rate] = total
    if not found:
        raise RunError(
            f"the inner steps diverge at every rate of {', '.join(map(str, RATES))}: are the weights finite?"
        )
    return min(found, key=lambda pair: found[pair])


def _prepared(
    learner: MetaLearner,
    parameters: Parameters,
    loss: Loss,
    users: MadeUpUsers,
    episodes: int,
    progress: Progress,
) -> tuple[Parameters, tuple[float, ...]]:
    """Parameters meta-trained on that many made-up users, a few to each outer step."""
    state, losses = learner.start(parameters), []
    for first in range(0, episodes, USERS_PER_STEP):
        tasks = [users.draw(number) for number in range(first, min(episodes, first + USERS_PER_STEP))]
        parameters, state, value = learner.meta_step(parameters, state, tasks, loss)
        losses.append(value)
        done = first + len(tasks)
        progress(done / episodes, f"made-up user {done} of {episodes}, query loss {value:.3f}")
    return parameters, tuple(losses)


@dataclass(frozen=True)
class Change:
    """A metric before and after, and its rise with a 95 % interval over the drawing of the query samples."""

    before: float
    after: float
    low: float
    high: float


def paired_change(before: np.ndarray, after: np.ndarray, truth: np.ndarray, seed: int) -> Change:
    """How much the accuracy in percent rises from outputs `before` to `after`, [n, k] each, of one query.

    The interval is the percentile bootstrap of the paired difference (Efron and Tibshirani, 1993).
    """
    gains = (after.argmax(1) == truth).astype(float) - (before.argmax(1) == truth).astype(float)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(gains), np.full(len(gains), 1 / len(gains)), RESAMPLES)
    low, high = np.percentile(100.0 * counts @ gains / len(gains), [2.5, 97.5])
    metric = Metric.ACCURACY
    return Change(score(metric, before, truth), score(metric, after, truth), float(low), float(high))
