"""Uniform, random and TPE: the suite, and what is each one's own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from policy_suite import PolicySuite
from small_graphs import context_of, residual_graph, trial_of

from device_bench.errors import BadInputError
from device_bench.protocol import Failure, FailureKind
from pipeline.plan import CompressionPlan
from pipeline.policy import DEFAULT_POLICY, POLICIES, load_policy
from pipeline.policy.base import Change, PolicyContext, shape_of
from pipeline.policy.uniform import evenly_spread, in_strides, ladder, macs_share


class TestUniform(PolicySuite):
    name = "uniform"

    def test_keeps_the_same_share_everywhere(self, context: PolicyContext) -> None:
        plan = next(p for p in load_policy("uniform").propose(context, [], 30) if p.units and not p.removed)
        wide = [name for name, ratios in context.space.choices.items() if len(ratios) == 7]
        assert len({plan.keep_ratio(name) for name in wide}) == 1

    def test_the_first_few_are_spread_over_the_whole_ladder(self, context: PolicyContext) -> None:
        shares = [macs_share(context.graph, p) for p in load_policy("uniform").propose(context, [], 4)]
        assert max(shares) > 2 * min(shares)

    def test_the_ladder_goes_from_the_original_to_all_blocks_removed(self, context: PolicyContext) -> None:
        rungs = ladder(context.space)
        assert shape_of(rungs[0]) == shape_of(CompressionPlan())
        assert rungs[-1].removed == tuple(sorted(context.space.removable))
        assert rungs[-1].keep_ratio("layer3.0.conv1") == 0.25

    def test_removed_blocks_are_evenly_spread(self) -> None:
        assert evenly_spread("abcdef", 3) == ["b", "d", "f"]
        assert evenly_spread("abcdef", 6) == list("abcdef")
        assert evenly_spread("abcdef", 0) == []

    @pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 49])
    def test_strides_reach_everything_once(self, count: int) -> None:
        assert sorted(in_strides(count)) == list(range(count))


class TestRandom(PolicySuite):
    name = "random"

    def test_another_seed_gives_other_plans(self) -> None:
        graph = residual_graph()
        first, second = (load_policy("random").propose(context_of(graph, seed), [], 5) for seed in (0, 1))
        assert first != second

    def test_gives_light_and_heavy_plans(self, context: PolicyContext) -> None:
        shares = [macs_share(context.graph, p) for p in load_policy("random").propose(context, [], 60)]
        assert min(shares) < 0.3
        assert max(shares) > 0.7


class TestTpe(PolicySuite):
    name = "tpe"

    def test_learns_where_the_good_plans_are(self, context: PolicyContext) -> None:
        """What removes all blocks is made bad beyond measure; TPE then removes fewer than random search."""
        history = []
        for number, plan in enumerate(load_policy("random").propose(context, [], 80)):
            trial = trial_of(context.graph, plan, number, "random")
            accuracy = 90.0 - 12.0 * len(plan.removed)
            latency = {name: 0.1 + 0.02 * len(plan.removed) for name in trial.latency_ms}
            history.append(trial.model_copy(update={"accuracy": accuracy, "latency_ms": latency}))
        removed = {
            name: sum(len(plan.removed) for plan in load_policy(name).propose(context, history, 20))
            for name in ("tpe", "random")
        }
        assert removed["tpe"] < 0.6 * removed["random"]

    def test_prints_nothing(self, context: PolicyContext, capfd: pytest.CaptureFixture[str]) -> None:
        load_policy("tpe").propose(context, [], 2)
        assert capfd.readouterr() == ("", "")

    def test_passes_over_trials_it_cannot_place(self, context: PolicyContext) -> None:
        whole = trial_of(context.graph, context.space.uniform(0.5), 0, "uniform")
        unmeasured = whole.model_copy(update={"number": 1, "latency_ms": {}})
        broken = whole.model_copy(
            update={"number": 2, "failure": Failure(kind=FailureKind.TIMED_OUT, message="180 s")}
        )
        foreign = whole.model_copy(
            update={
                "number": 3,
                "plan": CompressionPlan.model_validate({"units": {"conv1": {"keep_ratio": 0.9}}}),
            }
        )
        assert len(load_policy("tpe").propose(context, [whole, unmeasured, broken, foreign], 3)) == 3


def test_an_unknown_policy_is_an_error_with_the_nearest() -> None:
    with pytest.raises(BadInputError, match="did you mean greedy"):
        load_policy("gready")


def test_the_default_is_a_policy() -> None:
    assert DEFAULT_POLICY in POLICIES


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"unit": "a"},
        {"keep_ratio": 0.5},
        {"unit": "a", "keep_ratio": 0.5, "block": "b"},
        {"unit": "a", "keep_ratio": 1.0},
    ],
)
def test_a_change_is_one_thing(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unit|less than 1"):
        Change.model_validate(fields)


def test_importing_brings_neither_optuna_nor_sqlalchemy_nor_torch() -> None:
    script = (
        "import sys, pipeline.policy.greedy, pipeline.policy.tpe, pipeline.experience, pipeline.reward\n"
        "print([name for name in ('optuna', 'sqlalchemy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
