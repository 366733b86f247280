"""Policies by name, or by a trained one's file. Each is a page of its own, loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from device_bench.errors import unknown_name

if TYPE_CHECKING:
    from pipeline.policy.base import Policy
    from pipeline.policy.policy_file import PolicyFile

POLICIES: dict[str, str] = {
    "meta": "pipeline.policy.meta:MetaPolicy",
    "gp": "pipeline.policy.gp:GpPolicy",
    "maml": "pipeline.policy.adapted:MamlPolicy",
    "fomaml": "pipeline.policy.adapted:FomamlPolicy",
    "reptile": "pipeline.policy.adapted:ReptilePolicy",
    "anil": "pipeline.policy.adapted:AnilPolicy",
    "bisection": "pipeline.policy.bisection:BisectionPolicy",
    "greedy": "pipeline.policy.greedy:GreedyPolicy",
    "knapsack": "pipeline.policy.knapsack:KnapsackPolicy",
    "nsga2": "pipeline.policy.nsga2:Nsga2Policy",
    "tpe": "pipeline.policy.tpe:TpePolicy",
    "recurrent": "pipeline.policy.played:RecurrentPolicy",
    "reinforce": "pipeline.policy.reinforce:ReinforcePolicy",
    "rl2": "pipeline.policy.played:Rl2Policy",
    "random": "pipeline.policy.random_search:RandomPolicy",
    "uniform": "pipeline.policy.uniform:UniformPolicy",
}
DEFAULT_POLICY = "meta"


def load_policy(name: str) -> Policy:
    """The policy of that name, or that of a file such as "policies/rl2.safetensors".

    Raises:
        BadInputError: no such policy (names the nearest known ones), or a file that holds none.
    """
    if name.endswith(".safetensors"):
        from pipeline.policy.policy_file import load_policy_file

        return policy_of(load_policy_file(Path(name)))
    return cast("Policy", _class_of(name)())


def policy_of(trained: PolicyFile) -> Policy:
    """The policy that a file's content is of.

    Raises:
        BadInputError: its learner is not known, or its parameters do not fit this version.
    """
    return cast("Policy", _class_of(trained.learner)(trained))


def _class_of(name: str) -> Any:
    if name not in POLICIES:
        raise unknown_name("policy", name, POLICIES)
    module, _, attribute = POLICIES[name].partition(":")
    return getattr(import_module(module), attribute)
