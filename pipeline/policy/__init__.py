"""Policies by name. Each is a page of its own and is loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from device_bench.errors import unknown_name

if TYPE_CHECKING:
    from pipeline.policy.base import Policy

POLICIES: dict[str, str] = {
    "greedy": "pipeline.policy.greedy:GreedyPolicy",
    "knapsack": "pipeline.policy.knapsack:KnapsackPolicy",
    "nsga2": "pipeline.policy.nsga2:Nsga2Policy",
    "tpe": "pipeline.policy.tpe:TpePolicy",
    "random": "pipeline.policy.random_search:RandomPolicy",
    "uniform": "pipeline.policy.uniform:UniformPolicy",
}
DEFAULT_POLICY = "greedy"


def load_policy(name: str) -> Policy:
    """The policy of that name.

    Raises:
        BadInputError: no such policy; names the nearest known ones.
    """
    if name not in POLICIES:
        raise unknown_name("policy", name, POLICIES)
    module, _, attribute = POLICIES[name].partition(":")
    return cast("Policy", getattr(import_module(module), attribute)())
