"""Uniform, random, TPE and NSGA-II: the suite, and what is each one's own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from policy_suite import PolicySuite
from small_graphs import context_of, residual_graph, trial_of

from device_bench.errors import BadInputError
from device_bench.protocol import Failure, FailureKind
from pipeline.experience import Trial
from pipeline.plan import CompressionPlan
from pipeline.policy import DEFAULT_POLICY, POLICIES, load_policy
from pipeline.policy.base import Change, PolicyContext, shape_of
from pipeline.policy.bisection import last_good, middles
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


class TestBisection(PolicySuite):
    name = "bisection"

    @pytest.mark.parametrize("last", [0, 1, 20, 33])
    def test_ends_at_the_last_rung_within_the_budget(self, context: PolicyContext, last: int) -> None:
        rungs = ladder(context.space)
        places = {shape_of(plan): place for place, plan in enumerate(rungs)}
        history: list[Trial] = []
        while last_good(context, history, rungs)[0] + 1 < last_good(context, history, rungs)[1]:
            (plan,) = load_policy("bisection").propose(context, history, 1)
            place = places[shape_of(plan)]
            trial = trial_of(context.graph, plan, len(history), "bisection")
            left = context.float_accuracy - (0.0 if place <= last else 2 * context.budget.max_drop + 1.0)
            # What the cut has left says the opposite: only what training has left counts.
            before = 100.0 - place
            history.append(trial.model_copy(update={"accuracy": before, "accuracy_recovered": left}))
        assert last_good(context, history, rungs) == (last, last + 1)
        assert len(history) <= len(rungs).bit_length()

    def test_what_diverged_is_not_good(self, context: PolicyContext) -> None:
        rungs = ladder(context.space)
        trial = trial_of(context.graph, rungs[5], 0, "bisection")
        diverged = trial.model_copy(update={"accuracy_recovered": float("nan")})
        assert last_good(context, [diverged], rungs) == (0, 5)

    @pytest.mark.parametrize(("first", "end"), [(0, 0), (3, 4), (1, 9), (0, 50)])
    def test_middles_reach_everything_once(self, first: int, end: int) -> None:
        found = list(middles(first, end))
        assert sorted(found) == list(range(first, end))
        assert found[:1] == [(first + end) // 2][: len(found)]


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


class OptunaSuite(PolicySuite):
    """What both of Optuna's searches must do besides."""

    def test_learns_where_the_good_plans_are(self, context: PolicyContext) -> None:
        """What removes blocks is made bad beyond measure; the search removes fewer than random search."""
        history = []
        for number, plan in enumerate(load_policy("random").propose(context, [], 80)):
            trial = trial_of(context.graph, plan, number, "random")
            accuracy = 90.0 - 12.0 * len(plan.removed)
            latency = {name: 0.1 + 0.02 * len(plan.removed) for name in trial.latency_ms}
            history.append(trial.model_copy(update={"accuracy": accuracy, "latency_ms": latency}))
        removed = {
            name: sum(len(plan.removed) for plan in load_policy(name).propose(context, history, 20))
            for name in (self.name, "random")
        }
        assert removed[self.name] < 0.6 * removed["random"]

    def test_prints_nothing(self, context: PolicyContext, capfd: pytest.CaptureFixture[str]) -> None:
        load_policy(self.name).propose(context, started(context), 2)
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
        history = [*started(context), whole, unmeasured, broken, foreign]
        assert len(load_policy(self.name).propose(context, history, 3)) == 3

    def test_leaves_the_random_start_behind(self, context: PolicyContext) -> None:
        history = started(context)
        drawn = load_policy("random").propose(context, history, 3)
        assert load_policy(self.name).propose(context, history, 3) != drawn
        assert load_policy(self.name).propose(context, history[:3], 2) == load_policy("random").propose(
            context, history[:3], 2
        )


class TestTpe(OptunaSuite):
    name = "tpe"


class TestNsga2(OptunaSuite):
    name = "nsga2"

    def test_children_are_of_the_elite(self, context: PolicyContext) -> None:
        """Of two generations the first is the better one, so that its traits are the children's."""
        trait = context.space.removable[0]
        history = []
        for number, plan in enumerate(load_policy("random").propose(context, [], 40)):
            good = number < 20
            removed = {*plan.removed, trait} if good else set(plan.removed) - {trait}
            shaped = context.space.plan({n: c.keep_ratio for n, c in plan.units.items()}, removed)
            trial = trial_of(context.graph, shaped, number, "random")
            history.append(
                trial.model_copy(update={"accuracy": 60.0 + number} if good else {"accuracy": 5.0})
            )
        children = load_policy("nsga2").propose(context, history, 10)
        assert sum(trait in plan.removed for plan in children) >= 8


def started(context: PolicyContext) -> list[Trial]:
    """So many trials that no search goes on at random."""
    plans = load_policy("random").propose(context, [], 24)
    return [trial_of(context.graph, plan, number, "random") for number, plan in enumerate(plans)]


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
        "import sys, pipeline.policy.greedy, pipeline.policy.tpe, pipeline.policy.nsga2\n"
        "import pipeline.experience, pipeline.reward\n"
        "print([name for name in ('optuna', 'sqlalchemy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
