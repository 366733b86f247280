from __future__ import annotations

from collections.abc import Callable

import pytest
from small_graphs import chain_graph, context_of, residual_graph, trial_of

from device_bench.protocol import Failure, FailureKind
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy.base import PolicyContext


@pytest.fixture
def context() -> PolicyContext:
    """A residual network of millions of plans."""
    return context_of(residual_graph())


@pytest.fixture
def small_context() -> PolicyContext:
    """Two hidden layers and fifteen plans."""
    return context_of(chain_graph())


@pytest.fixture
def try_plan() -> Callable[..., Trial]:
    """Measures a plan in the make-believe world."""

    def attempt(context: PolicyContext, plan: CompressionPlan, number: int, origin: str) -> Trial:
        return trial_of(context.graph, plan, number, origin)

    return attempt


@pytest.fixture
def failed() -> Callable[[Trial], Trial]:
    """The same trial, had the device crashed."""

    def crash(trial: Trial) -> Trial:
        failure = Failure(kind=FailureKind.CRASHED, message="signal 11")
        return Trial(number=trial.number, plan=trial.plan, origin=trial.origin, failure=failure)

    return crash
