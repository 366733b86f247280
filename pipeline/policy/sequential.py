"""Proposing by a trained recurrent network: what it has done is played back, then it plays on.

The network's state after the last trials is what it knows of the task. From there several plans are played at
once: in the first lane it takes what it likes best, in the others it draws; what was tried before is passed
over. Where nothing new comes, it draws more freely, and at last the space itself is drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from device_bench.errors import BadInputError
from pipeline.environment.building import Building
from pipeline.environment.replay import PlayedTrial, Replay, memory_of, played_trials, replay
from pipeline.environment.sheet import TaskSheet
from pipeline.environment.stack import SheetStack
from pipeline.experience import Trial
from pipeline.learning.recurrent_net import Parameters, Steps, first_state, unroll
from pipeline.learning.rl2 import joined
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Novelty, PolicyContext
from pipeline.policy.policy_file import PolicyFile
from pipeline.policy.random_search import RandomPolicy
from pipeline.tables.codec import Options, PlanCodec

LANES = 12
# How freely it draws, in turn, until enough new plans were found.
TEMPERATURES = (1.0, 1.5, 2.5)


@dataclass(frozen=True, eq=False)
class SequentialPlayer:
    """A trained network and how it is used.

    Args:
        trials: so many of the last trials are played back; 0 for a network that remembers none.
    """

    parameters: Parameters
    trials: int

    @classmethod
    def of(cls, policy: PolicyFile) -> SequentialPlayer:
        """The player that a policy file describes.

        Raises:
            BadInputError: its tensors are not those of such a network.
        """
        parameters = {name: torch.from_numpy(np.array(array)) for name, array in policy.tensors.items()}
        inputs = policy.setting("features") + policy.setting("option_features") + 2
        shape = (policy.setting("hidden"), inputs)
        found = parameters.get("encode.weight")
        if found is None or tuple(found.shape) != shape:
            raise BadInputError(
                f"the policy file of {policy.learner} does not fit: encode.weight must be {shape}, got "
                f"{None if found is None else tuple(found.shape)}; train it anew with `edgeloop meta-train`"
            )
        return cls(parameters, int(policy.setting("trials")))

    def propose(self, context: PolicyContext, history: Sequence[Trial], count: int) -> list[CompressionPlan]:
        """Up to `count` new plans; the targets take turns."""
        if count < 1:
            return []
        codec = PlanCodec(context.space)
        novelty = Novelty(history)
        plans: list[CompressionPlan] = []
        targets = [target.name for target in context.targets]
        turn = len(history) % len(targets)
        for place, name in enumerate([*targets[turn:], *targets[:turn]]):
            wanted = len(range(place, count, len(targets)))
            if wanted and codec.positions:
                sheet = TaskSheet.of(context, name, codec)
                plans += self._for_target(sheet, played_trials(sheet, history), wanted, novelty)
        return plans + drawn_plans(context, history, plans, count - len(plans))

    def _for_target(
        self, sheet: TaskSheet, trials: Sequence[PlayedTrial], count: int, novelty: Novelty
    ) -> list[CompressionPlan]:
        seed = (sheet.context.seed * 1_000_003 + len(trials)) % 2**62
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            past = replay(sheet, trials, self.trials)
            state, before = self._after(past)
            plans: list[CompressionPlan] = []
            for temperature in TEMPERATURES:
                rows = self._play(sheet, trials, (state, before), temperature, generator)
                for row in sheet.links.normal(rows):
                    plan = sheet.codec.decode(row)
                    if len(plans) < count and novelty.admits(plan):
                        plans.append(plan)
                if len(plans) == count:
                    break
        return plans

    def _after(self, past: Replay | None) -> tuple[Tensor, Tensor]:
        """The state after the past, and what the next step is told of the one before, each [1, …]."""
        option_features = self.parameters["option.weight"].shape[1]
        state = first_state(self.parameters, 1)
        if past is None:
            return state, torch.zeros(1, option_features + 2)
        episodes, length = len(past.rewards), len(past.actions)
        each = np.arange(episodes)
        seen = np.stack([one.features for one in past.observations])
        told = np.stack(
            [one.options[each, a] for one, a in zip(past.observations, past.actions, strict=True)]
        )
        ended = np.zeros((length, episodes, 2), np.float32)
        ended[-1] = np.stack([past.rewards, np.ones(episodes)], axis=1)
        # One episode after the other, each step told of the one before.
        after = np.concatenate([told, ended], axis=2).transpose(1, 0, 2).reshape(episodes * length, -1)
        before = np.concatenate([np.zeros_like(after[:1]), after[:-1]])
        flat = np.concatenate([seen.transpose(1, 0, 2).reshape(episodes * length, -1), before], axis=1)
        state = self._carried(torch.from_numpy(flat.astype(np.float32)), state)
        return state, torch.from_numpy(after[-1:].astype(np.float32))

    def _carried(self, seen: Tensor, state: Tensor) -> Tensor:
        steps = len(seen)
        nothing = torch.zeros(steps, 1, 1, self.parameters["option.weight"].shape[1])
        allowed = torch.ones(steps, 1, 1, dtype=torch.bool)
        past = Steps(seen[:, None], torch.ones(steps, 1), nothing, allowed, torch.zeros(steps, 1, 1))
        return unroll(self.parameters, past, state)[2]

    def _play(
        self,
        sheet: TaskSheet,
        trials: Sequence[PlayedTrial],
        start: tuple[Tensor, Tensor],
        temperature: float,
        generator: torch.Generator,
    ) -> Options:
        """Plans built from a state on, int16 [LANES, positions]."""
        building = Building(SheetStack([sheet]), memory_of(sheet, trials, LANES), np.zeros(LANES, np.int64))
        state, before = (tensor.expand(LANES, -1) for tensor in start)
        lanes, keep = torch.arange(LANES), torch.ones(LANES)
        # The first lane takes the best; noise of the others as in Gumbel's trick for drawing from a softmax.
        scale = torch.full((LANES, 1), temperature)
        scale[0] = 0.0
        for _ in range(len(sheet.mask) + 1):
            steps = joined(building.observe(), before, keep)
            logits, _, state = unroll(self.parameters, steps, state)
            noise = torch.rand(logits[0].shape, generator=generator).clamp_min(1e-20)
            action = (logits[0] - scale * torch.log(-torch.log(noise))).argmax(1)
            before = torch.cat([steps.options[0, lanes, action], torch.zeros(LANES, 2)], dim=1)
            building.act_(action.numpy())
        return building.row


def drawn_plans(
    context: PolicyContext, history: Sequence[Trial], plans: Sequence[CompressionPlan], count: int
) -> list[CompressionPlan]:
    """New plans drawn from the space, where a policy has none left of its own."""
    if count < 1:
        return []
    known = Novelty(history)
    for plan in plans:
        known.admits(plan)
    drawn = RandomPolicy().propose(context, history, count + len(plans))
    return [plan for plan in drawn if known.admits(plan)][:count]
