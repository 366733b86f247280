"""The trained policies that come with the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from policy_suite import PolicySuite

from pipeline.experience import Trial
from pipeline.policy import DEFAULT_POLICY, load_policy
from pipeline.policy.base import PolicyContext
from pipeline.policy.policy_file import SHIPPED_FOLDER, load_policy_file

# Bytes that all of them together may take.
MOST_BYTES = 2_000_000


class TestMeta(PolicySuite):
    name = "meta"


class TestMaml(PolicySuite):
    name = "maml"


class TestReptile(PolicySuite):
    name = "reptile"


class TestAnil(PolicySuite):
    name = "anil"


@pytest.mark.parametrize("path", sorted(SHIPPED_FOLDER.iterdir()), ids=lambda path: path.stem)
def test_every_file_is_a_policy_by_its_name(path: Path, context: PolicyContext) -> None:
    policy = load_policy(path.stem)
    assert policy.name == path.stem
    assert len(policy.propose(context, [], 3)) == 3


def test_they_are_small() -> None:
    assert 0 < sum(path.stat().st_size for path in SHIPPED_FOLDER.iterdir()) < MOST_BYTES


def test_meta_is_the_default_and_one_of_the_learners() -> None:
    assert DEFAULT_POLICY == "meta"
    best = load_policy_file(SHIPPED_FOLDER / "meta.safetensors")
    own = load_policy_file(SHIPPED_FOLDER / f"{best.learner}.safetensors")
    assert best.settings["features"] == own.settings["features"]


def test_features_alone_are_enough_and_effects_are_heard(context: PolicyContext) -> None:
    """The first trial of a run comes before its probes."""
    blind = replace(context, effects={})
    plans = load_policy("meta").propose(blind, [], 5)
    assert len(plans) == 5 and all(context.space.contains(plan) for plan in plans)
    assert plans != load_policy("meta").propose(context, [], 5)


def test_trials_change_what_comes_next(context: PolicyContext, try_plan: Callable[..., Trial]) -> None:
    policy = load_policy("meta")
    (first,) = policy.propose(context, [], 1)
    good = try_plan(context, first, 0, "meta")
    assert good.accuracy is not None
    bad = good.model_copy(update={"accuracy": 0.3 * good.accuracy})
    assert policy.propose(context, [good], 6) != policy.propose(context, [bad], 6)
