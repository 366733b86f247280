"""What every environment must do; a test class inherits it and gives the fixture `environment`."""

from __future__ import annotations

import numpy as np
import pytest

from device_bench.errors import BadInputError
from pipeline.environment.contract import Environment, TimeStep

STEPS = 60


def allowed_actions(step: TimeStep, rng: np.random.Generator) -> np.ndarray:
    """One of the allowed options in each lane, drawn alike."""
    mask = step.observation.mask
    return np.where(mask, rng.random(mask.shape), -1.0).argmax(1)


def played(environment: Environment, steps: int = STEPS, seed: int = 0) -> list[TimeStep]:
    """What comes of so many steps from a reset on."""
    rng = np.random.default_rng(seed)
    found = [environment.reset()]
    for _ in range(steps):
        found.append(environment.step(allowed_actions(found[-1], rng)))
    return found


class EnvironmentSuite:
    """Fixture to give: `environment`, whose episodes are much shorter than `STEPS`."""

    def test_observations_are_as_the_spec_says(self, environment: Environment) -> None:
        spec, lanes = environment.spec, environment.lanes
        for step in played(environment):
            seen = step.observation
            assert seen.features.shape == (lanes, spec.features)
            assert seen.options.shape == (lanes, spec.options, spec.option_features)
            assert seen.mask.shape == seen.prior.shape == (lanes, spec.options)
            assert (seen.features.dtype, seen.options.dtype, seen.prior.dtype) == (np.float32,) * 3
            assert seen.mask.dtype == np.bool_

    def test_what_is_seen_is_finite(self, environment: Environment) -> None:
        for step in played(environment):
            seen = step.observation
            assert all(np.isfinite(a).all() for a in (seen.features, seen.options, seen.prior, step.reward))

    def test_something_is_always_allowed(self, environment: Environment) -> None:
        assert all(step.observation.mask.any(1).all() for step in played(environment))

    def test_a_reset_begins_anew(self, environment: Environment) -> None:
        first = environment.reset()
        assert first.fresh.all()
        assert not first.last.any() and not first.failed.any() and not first.reward.any()

    def test_equal_actions_have_equal_outcomes(self, environment: Environment) -> None:
        for one, other in zip(played(environment), played(environment), strict=True):
            assert np.array_equal(one.observation.features, other.observation.features)
            assert np.array_equal(one.reward, other.reward)
            assert np.array_equal(one.last, other.last)

    def test_every_lane_ends_episodes_and_tasks(self, environment: Environment) -> None:
        steps = played(environment)
        assert np.any([step.last for step in steps], axis=0).all()
        assert np.any([step.fresh for step in steps[1:]], axis=0).all()

    def test_only_an_end_is_rewarded_fails_or_leads_to_another_task(self, environment: Environment) -> None:
        for step in played(environment)[1:]:
            assert not step.reward[~step.last].any()
            assert not (step.failed & ~step.last).any()
            assert not (step.fresh & ~step.last).any()
            assert not step.reward[step.failed].any()

    def test_actions_must_be_one_a_lane(self, environment: Environment) -> None:
        environment.reset()
        with pytest.raises(BadInputError, match="actions must be"):
            environment.step(np.zeros(environment.lanes + 1, np.int64))

    def test_actions_must_be_whole_numbers(self, environment: Environment) -> None:
        environment.reset()
        with pytest.raises(BadInputError, match="actions must be"):
            environment.step(np.zeros(environment.lanes))  # type: ignore[arg-type]

    @pytest.mark.parametrize("beyond", [True, False])
    def test_an_action_out_of_range_is_refused(self, environment: Environment, beyond: bool) -> None:
        environment.reset()
        action = environment.spec.options if beyond else -1
        with pytest.raises(BadInputError, match="mask"):
            environment.step(np.full(environment.lanes, action))
