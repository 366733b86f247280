from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from known_outcomes import chain_outcomes, one_unit_outcomes, residual_outcomes
from policy_suite import PolicySuite
from trained_policies import TRAININGS, UPDATES, ship, trained

from device_bench.errors import BadInputError
from pipeline.experience import Trial
from pipeline.policy import load_policy
from pipeline.policy.base import PolicyContext
from pipeline.policy.played import RecurrentPolicy, Rl2Policy
from pipeline.policy.policy_file import PolicyFile, load_policy_file, save_policy
from pipeline.policy.training import TrainSettings

LEARNERS = ["rl2", "recurrent"]
CLASSES = {"rl2": Rl2Policy, "recurrent": RecurrentPolicy}


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts of 24 steps in eight lanes say as much about the plumbing as long ones."""
    monkeypatch.setattr("pipeline.policy.rl2_training.LANES", 8)
    monkeypatch.setattr("pipeline.policy.rl2_training.STEPS", 24)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that policies come with the package from, with both of them in it."""
    monkeypatch.setattr("pipeline.policy.policy_file.SHIPPED_FOLDER", tmp_path)
    for learner in LEARNERS:
        ship(learner, tmp_path)
    return tmp_path


@pytest.mark.usefixtures("shipped")
class TestRl2(PolicySuite):
    name = "rl2"


@pytest.mark.usefixtures("shipped")
class TestRecurrent(PolicySuite):
    name = "recurrent"


def quiet(share: float, words: str) -> None:
    """Nobody looks."""


@pytest.mark.parametrize("learner", LEARNERS)
def test_where_none_is_shipped_it_says_how_to_train_one(
    learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.policy.policy_file.SHIPPED_FOLDER", tmp_path)
    with pytest.raises(BadInputError, match=f"edgeloop meta-train tasks.toml --policy {learner}"):
        load_policy(learner)


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_trained_file_is_a_policy(learner: str, tmp_path: Path, context: PolicyContext) -> None:
    path = tmp_path / "mine.safetensors"
    save_policy(path, trained(learner))
    policy = load_policy(str(path))
    assert policy.name == learner
    assert policy.propose(context, [], 2) == CLASSES[learner](trained(learner)).propose(context, [], 2)


@pytest.mark.parametrize("learner", LEARNERS)
def test_two_trainings_give_the_same_bytes(learner: str, tmp_path: Path) -> None:
    trained.cache_clear()
    save_policy(tmp_path / "one", trained(learner))
    trained.cache_clear()
    save_policy(tmp_path / "other", trained(learner))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_training_that_was_cut_goes_on_to_the_same_policy(
    learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"pipeline.policy.{learner}_training.UPDATES_A_CHECKPOINT", 2)
    tasks = [chain_outcomes()]
    settings, checkpoint = TrainSettings(updates=4), tmp_path / "kept"

    class Cut(Exception):
        pass

    def cut(share: float, words: str) -> None:
        if share >= 0.75:
            raise Cut

    whole = TRAININGS[learner](tasks, settings, 0, None, quiet)
    with pytest.raises(Cut):
        TRAININGS[learner](tasks, settings, 0, checkpoint, cut)
    resumed = TRAININGS[learner](tasks, settings, 0, checkpoint, quiet)
    assert resumed.settings == whole.settings
    assert all(np.array_equal(resumed.tensors[name], whole.tensors[name]) for name in whole.tensors)


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_checkpoint_of_another_training_is_refused(
    learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"pipeline.policy.{learner}_training.UPDATES_A_CHECKPOINT", 1)
    checkpoint = tmp_path / "kept"
    TRAININGS[learner]([chain_outcomes()], TrainSettings(updates=1), 0, checkpoint, quiet)
    with pytest.raises(BadInputError, match="another seed"):
        TRAININGS[learner]([chain_outcomes()], TrainSettings(updates=1), 1, checkpoint, quiet)


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_checkpoint_is_no_policy(learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"pipeline.policy.{learner}_training.UPDATES_A_CHECKPOINT", 1)
    checkpoint = tmp_path / "kept.safetensors"
    TRAININGS[learner]([chain_outcomes()], TrainSettings(updates=1), 0, checkpoint, quiet)
    with pytest.raises(BadInputError, match="unfinished"):
        load_policy(str(checkpoint))


@pytest.mark.parametrize("learner", LEARNERS)
def test_training_needs_tasks(learner: str) -> None:
    with pytest.raises(BadInputError, match="at least one task"):
        TRAININGS[learner]([], TrainSettings(updates=1), 0, None, quiet)


def test_updates_must_be_some() -> None:
    with pytest.raises(BadInputError, match="at least 1"):
        TrainSettings(updates=0)


@pytest.mark.parametrize("learner", LEARNERS)
def test_progress_is_told(learner: str) -> None:
    told: list[tuple[float, str]] = []
    settings = TrainSettings(updates=2)
    TRAININGS[learner](
        [chain_outcomes()], settings, 0, None, lambda share, words: told.append((share, words))
    )
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(words for _, words in told)


def test_tensors_of_another_network_are_refused(context: PolicyContext) -> None:
    file = trained("rl2")
    other = PolicyFile("rl2", {**file.settings, "hidden": 7}, file.tensors)
    with pytest.raises(BadInputError, match=r"encode\.weight must be \(7, "):
        Rl2Policy(other).propose(context, [], 1)


@pytest.mark.parametrize("learner", LEARNERS)
def test_training_and_use_see_the_same_numbers(learner: str) -> None:
    file = trained(learner)
    assert (
        file.settings["features"] + file.settings["option_features"] + 2
        == (file.tensors["encode.weight"].shape[1])
    )
    assert file.settings["training"]["updates"] == UPDATES[learner]


@pytest.mark.parametrize("learner", LEARNERS)
def test_one_unit_and_no_probes_are_enough(learner: str) -> None:
    policy = CLASSES[learner](trained(learner))
    assert len(policy.propose(one_unit_outcomes().context, [], 2)) == 1, "there is but one other width"
    assert len(policy.propose(residual_outcomes(probed=False).context, [], 2)) == 2


def test_rl2_sees_what_came_of_its_trials(context: PolicyContext, try_plan: Callable[..., Trial]) -> None:
    """The same plans with other outcomes leave another state, and with it other odds."""
    policy = Rl2Policy(trained("rl2"))
    one_target = replace(context, targets=context.targets[:1])
    plans = policy.propose(one_target, [], 3)
    history = [try_plan(context, plan, n, "rl2") for n, plan in enumerate(plans)]
    worse = [trial.model_copy(update={"accuracy": 11.0}) for trial in history]
    assert policy.propose(one_target, history, 6) != policy.propose(one_target, worse, 6)


def test_the_file_of_one_learner_is_not_that_of_another(tmp_path: Path) -> None:
    save_policy(tmp_path / "p", trained("rl2"))
    with pytest.raises(BadInputError, match="not of 'recurrent'"):
        load_policy_file(tmp_path / "p", "recurrent")
