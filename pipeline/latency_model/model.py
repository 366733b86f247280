"""Predicts the latency of a file as the sum over its operators, learned from whole latencies alone.

No runtime has to tell what a single operator takes. The latency of net i is taken as

    y_i = Σ_j  b(o_ij) · exp(g(o_ij))        over the operators o_ij of net i

where b is a sum of `cost_terms` times costs that are at least 0, one set of costs for each group of
operators, and g are boosted regression trees (Friedman, "Greedy function approximation", 2001) on
`shape_features`. b is fitted first, by non-negative least squares on relative errors with weights that go
down where an error is large (Lawson and Hanson 1974, chapter 23; Holland and Welsch 1977, Cauchy weights).
Then each tree is fitted to log(y_i / ŷ_i), an operator weighing as much as its share of ŷ_i.
That a sum of kernels predicts a network well is nn-Meter's finding (Zhang et al., MobiSys 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_bench.errors import BadInputError, MissingExtraError
from pipeline.latency_model.features import cost_terms, group, shape_features
from pipeline.latency_model.operators import Operator
from pipeline.latency_model.records import MeasuredNet, Prediction

Vector = NDArray[np.float64]

FEWEST_NETS = 20
TREES = 80
LEARNING_RATE = 0.1
TREE_DEPTH = 5
LEAF_SHARE = 0.01
NETS_A_TREE = 0.7
# Operators that matter less to their net than this say nothing about what they cost.
LEAST_SHARE = 0.01
# Relative errors far above this one count less and less.
ROBUST_SCALE = 0.05
ROBUST_ROUNDS = 6
# No operator is free; what least squares gives nothing still gets this, so that trees can raise it.
LEAST_MS = 1e-7
FOLDS = 5
# Between these quantiles of measured / predicted lie nine of ten.
INTERVAL = (0.05, 0.95)
# How many times the largest that was measured a size may be without a word.
STRETCH = 1.25
UNKNOWN_SPREAD = (0.0, float("inf"))


@dataclass(frozen=True)
class LatencyModel:
    """A fitted predictor; made by `fit`.

    Args:
        costs: ms for each (group, term).
        trees: fitted regression trees, in order.
        spread: quantiles of measured / predicted in cross-validation.
        sizes: for each group the largest of each size that was measured.
    """

    costs: dict[tuple[str, str], float]
    trees: tuple[Any, ...]
    spread: tuple[float, float]
    sizes: dict[str, dict[str, float]]

    @classmethod
    def fit(cls, nets: Sequence[MeasuredNet], spread: tuple[float, float] = UNKNOWN_SPREAD) -> LatencyModel:
        """Learn from measured nets; the same nets in the same order give the same model.

        Args:
            spread: what `spread_of` found by cross-validation, which takes several times as long as a fit.

        Raises:
            BadInputError: there are too few nets.
            MissingExtraError: scikit-learn is not installed.
        """
        if len(nets) < FEWEST_NETS:
            raise BadInputError(
                f"a latency model needs at least {FEWEST_NETS} measured nets; got {len(nets)}: "
                "let the calibration run longer"
            )
        costs = _fit_costs(nets)
        return cls(costs, _fit_trees(nets, costs), spread, _sizes(nets))

    def predict(self, operators: Sequence[Operator]) -> Prediction:
        """What one inference of a file with these operators takes."""
        parts = self._parts(operators)
        total = float(parts.sum())
        return Prediction(
            ms=total,
            low=total * self.spread[0],
            high=total * self.spread[1],
            by_operator=tuple(float(part) for part in parts),
            outside=self._outside(operators),
        )

    def _parts(self, operators: Sequence[Operator]) -> Vector:
        parts = _base(operators, self.costs)
        known = np.array([group(operator) in self.sizes for operator in operators])
        total: Vector = parts * np.exp(_correction(self.trees, operators)) * known
        return total

    def _outside(self, operators: Sequence[Operator]) -> tuple[str, ...]:
        notes: dict[str, None] = {}
        for operator in operators:
            name = group(operator)
            if name not in self.sizes:
                notes[f"{name}: never measured, counted as nothing"] = None
                continue
            for size, value in _sizes_of(operator).items():
                # Below the smallest a fixed cost for the call is all that is left.
                if value > STRETCH * self.sizes[name][size]:
                    most = self.sizes[name][size]
                    notes[f"{name}: {size} {value:g} where at most {most:g} was measured"] = None
        return tuple(notes)


def cross_validated(nets: Sequence[MeasuredNet]) -> Vector:
    """For each net what a model predicts that has not seen it, in ms, by five folds.

    Raises:
        BadInputError: there are too few nets.
    """
    predicted = np.zeros(len(nets))
    folds = np.arange(len(nets)) % FOLDS
    for fold in range(FOLDS):
        seen = [net for net, at in zip(nets, folds, strict=True) if at != fold]
        model = LatencyModel.fit(seen)
        for place, net in enumerate(nets):
            if folds[place] == fold:
                predicted[place] = model.predict(net.operators).ms
    return predicted


def spread_of(predicted: Sequence[float], measured: Sequence[float]) -> tuple[float, float]:
    """The quantiles of measured / predicted between which nine of ten lie; both in ms."""
    ratio = np.asarray(measured, dtype=np.float64) / np.maximum(np.asarray(predicted), LEAST_MS)
    low, high = np.quantile(ratio, INTERVAL)
    return (float(low), float(high))


def _fit_costs(nets: Sequence[MeasuredNet]) -> dict[tuple[str, str], float]:
    names: dict[tuple[str, str], int] = {}
    for net in nets:
        for operator in net.operators:
            for term in cost_terms(operator):
                names.setdefault((group(operator), term), len(names))
    table = np.zeros((len(nets), len(names)))
    for row, net in enumerate(nets):
        for operator in net.operators:
            for term, value in cost_terms(operator).items():
                table[row, names[group(operator), term]] += value
    # Divided by what was measured, an error is a relative one, and every net's target is 1.
    table /= np.array([net.ms for net in nets])[:, None]
    found = _robust_costs(table)
    return {name: float(found[column]) for name, column in names.items() if found[column] > 0}


def _robust_costs(table: Vector) -> Vector:
    """Costs of at least 0 with which every row of `table` [nets, terms] sums to about 1."""
    try:
        from scipy.optimize import nnls
    except ImportError as error:
        raise MissingExtraError("scipy", "pipeline") from error
    weights = np.ones(len(table))
    scale = np.abs(table).max(axis=0) + 1e-300
    costs = np.zeros(table.shape[1])
    for _ in range(ROBUST_ROUNDS):
        solution, _ = nnls(table / scale * weights[:, None], weights, maxiter=30 * table.shape[1])
        costs = solution / scale
        weights = 1 / np.sqrt(1 + ((table @ costs - 1) / ROBUST_SCALE) ** 2)
    return costs


def _base(operators: Sequence[Operator], costs: dict[tuple[str, str], float]) -> Vector:
    return np.array(
        [
            max(
                LEAST_MS,
                sum(costs.get((group(one), term), 0.0) * value for term, value in cost_terms(one).items()),
            )
            for one in operators
        ]
    )


def _fit_trees(nets: Sequence[MeasuredNet], costs: dict[tuple[str, str], float]) -> tuple[Any, ...]:
    try:
        from sklearn.tree import DecisionTreeRegressor
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "pipeline") from error
    operators = [operator for net in nets for operator in net.operators]
    owner = np.repeat(np.arange(len(nets)), [len(net.operators) for net in nets])
    measured = np.array([net.ms for net in nets])
    table, base = _table(operators), _base(operators, costs)
    correction = np.zeros(len(operators))
    rng = np.random.default_rng(0)
    trees = []
    for number in range(TREES):
        parts = base * np.exp(correction)
        whole = np.bincount(owner, parts, len(nets))
        share = parts / whole[owner]
        chosen = (share > LEAST_SHARE) & (rng.random(len(nets)) < NETS_A_TREE)[owner]
        tree = DecisionTreeRegressor(
            max_depth=TREE_DEPTH, min_weight_fraction_leaf=LEAF_SHARE, random_state=number
        )
        tree.fit(table[chosen], np.log(measured / whole)[owner][chosen], share[chosen])
        trees.append(tree)
        correction += LEARNING_RATE * tree.predict(table)
    return tuple(trees)


def _correction(trees: Sequence[Any], operators: Sequence[Operator]) -> Vector:
    table = _table(operators)
    total = np.zeros(len(operators))
    for tree in trees:
        total += LEARNING_RATE * tree.predict(table)
    return total


def _table(operators: Sequence[Operator]) -> NDArray[np.float32]:
    return np.array([shape_features(operator) for operator in operators], dtype=np.float32)


def _sizes_of(operator: Operator) -> dict[str, float]:
    """The sizes whose range is watched: beyond it costs follow other laws (caches, other kernels)."""
    moved = operator.inputs + operator.outputs + operator.weights
    return {"multiplications": operator.macs, "elements": moved, "weights": operator.weights}


def _sizes(nets: Sequence[MeasuredNet]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for net in nets:
        for operator in net.operators:
            ranges = found.setdefault(group(operator), {})
            for size, value in _sizes_of(operator).items():
                ranges[size] = max(ranges.get(size, value), value)
    return found
