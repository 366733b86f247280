"""The MAML family: sinusoids as in the paper, and gradients worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from sinusoids import HEAD, errors, learned, loss, parameters, pretrained, sinusoid

from device_bench.errors import BadInputError, RunError
from pipeline.learning.adam import adam_start, adam_step
from pipeline.learning.anil import ANIL
from pipeline.learning.fomaml import FOMAML
from pipeline.learning.inner import Batch, InnerLoop, MetaLearner, Parameters, TaskBatch
from pipeline.learning.maml import MAML
from pipeline.learning.reptile import Reptile

STEPS = 200
FEWER = {"reptile": 100}  # its outer steps are larger, and each costs more
LEARNERS: list[MetaLearner] = [
    MAML(InnerLoop(0.03, 1), 5e-3),
    FOMAML(InnerLoop(0.01, 5), 5e-3),
    Reptile(InnerLoop(0.02, 8), 0.7),
    ANIL(InnerLoop(0.03, 1), HEAD, 5e-3),
]
# It takes as many steps as all others together.
by_name = pytest.mark.parametrize(
    "learner",
    [pytest.param(each, marks=pytest.mark.slow if each.name == "reptile" else ()) for each in LEARNERS],
    ids=lambda learner: learner.name,
)


@pytest.fixture(scope="module")
def plain() -> Parameters:
    """Pre-trained on as many samples of all sinusoids."""
    return pretrained(STEPS)


@by_name
def test_learns_sinusoids_from_ten_points(learner: MetaLearner, plain: Parameters) -> None:
    without, adapted = errors(learner, learned(learner, FEWER.get(learner.name, STEPS)))
    _, plain_adapted = errors(learner, plain)
    assert adapted < 0.75 * without  # the ablation: the same parameters without the inner steps
    assert adapted < 0.75 * plain_adapted


# L(θ; (a, b)) = a/2 (θ − b)²: θ′ = θ − αa(θ − b), and with query (c, d) the outer gradient is
# (1 − αa) · c(θ′ − d). With α = 0.1, θ = 2, support (3, 1), query (5, 0): θ′ = 1.7, 0.7 · 8.5 = 5.95.
THETA: Parameters = {"theta": torch.tensor([2.0], dtype=torch.float64)}


def quadratic(theta: Parameters, batch: Batch) -> torch.Tensor:
    scale, place = batch
    return (0.5 * scale * (theta["theta"] - place) ** 2).mean()


def point(scale: float, place: float) -> Batch:
    return torch.tensor([scale], dtype=torch.float64), torch.tensor([place], dtype=torch.float64)


BY_HAND = TaskBatch(point(3.0, 1.0), point(5.0, 0.0))
ONCE = InnerLoop(0.1)


def test_inner_step_by_hand() -> None:
    assert float(ONCE.adapt(THETA, BY_HAND.support, quadratic)["theta"]) == pytest.approx(1.7)
    twice = InnerLoop(0.1, 2).adapt(THETA, BY_HAND.support, quadratic)
    assert float(twice["theta"]) == pytest.approx(1.7 - 0.1 * 3 * 0.7)
    assert float(THETA["theta"]) == 2.0


def test_maml_goes_through_the_inner_step() -> None:
    gradient, value = MAML(ONCE).meta_gradient(THETA, [BY_HAND], quadratic)
    assert float(value) == pytest.approx(0.5 * 5 * 1.7**2)
    assert float(gradient["theta"]) == pytest.approx(0.7 * 8.5)


def test_fomaml_differs_by_the_second_order_term() -> None:
    first, value = FOMAML(ONCE).meta_gradient(THETA, [BY_HAND], quadratic)
    whole, same = MAML(ONCE).meta_gradient(THETA, [BY_HAND], quadratic)
    assert float(value) == float(same)
    assert float(first["theta"]) == pytest.approx(8.5)
    assert float(whole["theta"] - first["theta"]) == pytest.approx(-0.1 * 3 * 8.5)  # −α∇²L · ∇L(θ′)


def test_mean_over_tasks() -> None:
    other = TaskBatch(point(0.0, 0.0), point(1.0, 0.0))  # nothing to adapt to: gradient 1 · (2 − 0)
    gradient, _ = MAML(ONCE).meta_gradient(THETA, [BY_HAND, other], quadratic)
    assert float(gradient["theta"]) == pytest.approx((5.95 + 2.0) / 2)


def test_maml_gradient_against_differences() -> None:
    """Two inner steps through a network with smooth curvature, every parameter of its head."""
    weights = torch.nn.Sequential(torch.nn.Linear(1, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    torch.manual_seed(3)
    theta = {name: torch.randn_like(p).detach() for name, p in weights.named_parameters()}
    task = sinusoid(torch.Generator().manual_seed(4))
    support, query = (tuple(part.double() for part in batch) for batch in (task.support, task.query))

    def squared(current: Parameters, batch: Batch) -> torch.Tensor:
        return ((torch.func.functional_call(weights, current, (batch[0],)) - batch[1]) ** 2).mean()

    inner = InnerLoop(0.02, 2)
    gradient, _ = MAML(inner).meta_gradient(theta, [TaskBatch(support, query)], squared)
    for name in theta:
        step = torch.zeros_like(theta[name])
        step.view(-1)[0] = 1e-5
        up, down = (
            float(squared(inner.adapt(theta | {name: theta[name] + sign * step}, support, squared), query))
            for sign in (1, -1)
        )
        assert float(gradient[name].view(-1)[0]) == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-7)


def test_reptile_by_hand() -> None:
    # On support and query together: gradient (3 · 1 + 5 · 2)/2 = 6.5, so θ′ = 1.35; ε = 0.5 goes half way.
    learner = Reptile(ONCE, 0.5)
    moved, state, value = learner.meta_step(THETA, learner.start(THETA), [BY_HAND], quadratic)
    assert float(moved["theta"]) == pytest.approx(2.0 + 0.5 * (1.35 - 2.0))
    assert state.steps == 1
    assert value == pytest.approx(0.5 * 5 * 1.7**2)  # after adapting to the support set alone


def test_anil_moves_the_head_in_and_everything_out() -> None:
    learner = ANIL(InnerLoop(0.02, 3), HEAD)
    theta, task = parameters(), sinusoid(torch.Generator().manual_seed(0))
    adapted = learner.adapt(theta, task.support, loss)
    assert {name for name in theta if not torch.equal(theta[name], adapted[name])} == set(HEAD)
    moved = learner.meta_step(theta, learner.start(theta), [task], loss).parameters
    assert all(not torch.equal(theta[name], moved[name]) for name in theta)


def test_adam_is_torch_s() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, dtype=torch.float64))
    optimizer = torch.optim.Adam([weight], lr=0.01)
    mine = {"w": weight.detach().clone()}
    state = adam_start(mine)
    for _ in range(5):
        gradient = torch.randn(4, dtype=torch.float64)
        weight.grad = gradient.clone()
        optimizer.step()
        mine, state = adam_step(mine, {"w": gradient}, state, 0.01)
    assert torch.allclose(mine["w"], weight.detach(), rtol=1e-12)


@by_name
def test_stopping_and_going_on_is_the_same(learner: MetaLearner) -> None:
    generator = torch.Generator().manual_seed(5)
    tasks = [sinusoid(generator) for _ in range(4)]

    def trained(theta: Parameters, state: object, part: list[TaskBatch]) -> tuple[Parameters, object]:
        for task in part:
            theta, state, _ = learner.meta_step(theta, state, [task], loss)  # type: ignore[arg-type]
        return theta, state

    start = parameters()
    through, _ = trained(start, learner.start(start), tasks)
    halfway, state = trained(parameters(), learner.start(start), tasks[:2])
    resumed, _ = trained({name: tensor.clone() for name, tensor in halfway.items()}, state, tasks[2:])
    assert all(torch.equal(through[name], resumed[name]) for name in through)
    assert all(torch.equal(start[name], value) for name, value in parameters().items())  # nothing in place


@by_name
def test_empty_sets_and_no_tasks(learner: MetaLearner) -> None:
    theta, task = parameters(), sinusoid(torch.Generator().manual_seed(0))
    nothing = (torch.zeros(0, 1), torch.zeros(0, 1))
    state = learner.start(theta)
    with pytest.raises(BadInputError, match="at least one task"):
        learner.meta_step(theta, state, [], loss)
    with pytest.raises(BadInputError, match=r"support \(task 1\) set is empty"):
        learner.meta_step(theta, state, [task, TaskBatch(nothing, task.query)], loss)
    with pytest.raises(BadInputError, match=r"query \(task 0\) set is empty"):
        learner.meta_step(theta, state, [TaskBatch(task.support, nothing)], loss)
    with pytest.raises(BadInputError, match="support set is empty"):
        learner.adapt(theta, nothing, loss)


@by_name
def test_losses_that_are_not_finite(learner: MetaLearner) -> None:
    theta, task = parameters(), sinusoid(torch.Generator().manual_seed(0))
    bad = (task.support[0], task.support[1] * math.nan)
    with pytest.raises(RunError, match=r"support set before inner step 1 is nan"):
        learner.adapt(theta, bad, loss)
    with pytest.raises(RunError, match=r"query loss of task 0 is nan"):
        learner.meta_step(theta, learner.start(theta), [TaskBatch(task.support, bad)], loss)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InnerLoop(0.0), "inner rate must be above 0; got 0.0"),
        (lambda: InnerLoop(math.nan), "inner rate must be above 0; got nan"),
        (lambda: InnerLoop(0.1, 0), "inner steps must be at least 1; got 0"),
        (lambda: Reptile(ONCE, 1.5), "at most 1; got 1.5"),
        (lambda: ANIL(ONCE, ()), "names of the head's parameters"),
        (lambda: ANIL(ONCE, "head"), "names of the head's parameters; got 'head'"),
        (lambda: ANIL(InnerLoop(0.1, 1, frozenset(HEAD)), HEAD), "leave movable out"),
    ],
)
def test_settings_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()


def test_names_that_do_not_exist() -> None:
    task = sinusoid(torch.Generator().manual_seed(0))
    with pytest.raises(BadInputError, match=r"unknown parameter '4.weigth'; did you mean 4.weight"):
        ANIL(ONCE, ("4.weigth",)).adapt(parameters(), task.support, loss)
    with pytest.raises(BadInputError, match="name at least one"):
        InnerLoop(0.1, 1, frozenset()).adapt(parameters(), task.support, loss)


def test_long_gradients_are_cut() -> None:
    # |3 · (2 − 1)| = 3 is cut to 0.5, |3 · (1.1 − 1)| = 0.3 is not.
    inner = InnerLoop(0.1, longest=0.5)
    assert float(inner.adapt(THETA, BY_HAND.support, quadratic)["theta"]) == pytest.approx(2.0 - 0.1 * 0.5)
    near = {"theta": torch.tensor([1.1], dtype=torch.float64)}
    assert float(inner.adapt(near, BY_HAND.support, quadratic)["theta"]) == pytest.approx(1.1 - 0.1 * 0.3)
    # Where it is cut, a small change of θ does not change the step: the outer gradient is that at θ′.
    gradient, _ = MAML(inner).meta_gradient(THETA, [BY_HAND], quadratic)
    assert float(gradient["theta"]) == pytest.approx(5 * 1.95)
    with pytest.raises(BadInputError, match="must be above 0; got 0"):
        InnerLoop(0.1, longest=0.0)
