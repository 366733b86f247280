"""The sinusoid family of the MAML paper (section 5.1), and a small network for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.learning.inner import Batch, MetaLearner, Parameters, TaskBatch, detached

SHOTS, QUERIES, TASKS_PER_STEP = 10, 10, 8
HEAD = ("4.weight", "4.bias")


def network(seed: int = 0) -> nn.Sequential:
    """One input, two hidden layers of 40, one output: the paper's."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))


NETWORK = network()


def parameters() -> Parameters:
    """Fresh parameters, always the same."""
    return detached(dict(network().named_parameters()))


def loss(theta: Parameters, batch: Batch) -> Tensor:
    """Mean squared error."""
    x, y = batch
    return ((functional_call(NETWORK, theta, (x,)) - y) ** 2).mean()


def sinusoid(generator: torch.Generator, queries: int = QUERIES) -> TaskBatch:
    """y = A sin(x + φ), A in 0.1 … 5, φ in 0 … π, x in −5 … 5."""
    amplitude = 0.1 + 4.9 * torch.rand(1, generator=generator)
    phase = math.pi * torch.rand(1, generator=generator)
    x = 10 * torch.rand(SHOTS + queries, 1, generator=generator) - 5
    y = amplitude * torch.sin(x + phase)
    return TaskBatch((x[:SHOTS], y[:SHOTS]), (x[SHOTS:], y[SHOTS:]))


def learned(learner: MetaLearner, steps: int) -> Parameters:
    """Parameters after `steps` outer steps, always the same."""
    generator = torch.Generator().manual_seed(1)
    theta = parameters()
    state = learner.start(theta)
    for _ in range(steps):
        tasks = [sinusoid(generator) for _ in range(TASKS_PER_STEP)]
        theta, state, _ = learner.meta_step(theta, state, tasks, loss)
    return theta


def errors(learner: MetaLearner, theta: Parameters, tasks: int = 60) -> tuple[float, float]:
    """Mean squared error on new sinusoids before and after adapting to ten points of each."""
    generator = torch.Generator().manual_seed(2)
    before = after = 0.0
    for _ in range(tasks):
        task = sinusoid(generator, queries=50)
        before += float(loss(theta, task.query)) / tasks
        after += float(loss(learner.adapt(theta, task.support, loss), task.query)) / tasks
    return before, after


def pretrained(steps: int, rate: float = 1e-3) -> Parameters:
    """Parameters trained on all sinusoids at once, without any inner loop."""
    module = network()
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        tasks = [sinusoid(generator) for _ in range(TASKS_PER_STEP)]
        x = torch.cat([part[0] for task in tasks for part in (task.support, task.query)])
        y = torch.cat([part[1] for task in tasks for part in (task.support, task.query)])
        optimizer.zero_grad()
        ((module(x) - y) ** 2).mean().backward()
        optimizer.step()
    return detached(dict(module.named_parameters()))
