"""Which parameters a recovery trains when.

- full: all of them, all along.
- last_layers: those of the last third of the layers.
- layer_wise: for the first half of the steps one group of layers after the other, from the input on; then all
  together.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.layer_choice import RecoveryMethod

LAST_SHARE = 3
GROUPS = 4


def trained_at(method: RecoveryMethod, names: Sequence[str], step: int, steps: int) -> frozenset[str]:
    """Names of the parameters that the step trains.

    Args:
        names: of all parameters, in the network's order.
        step: from 0 to steps − 1.
    """
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    if method == "last_layers":
        open_layers = set(layers[-max(1, len(layers) // LAST_SHARE) :])
    elif method == "layer_wise" and 2 * step < steps:
        groups = min(GROUPS, len(layers))
        group = min(groups - 1, 2 * step * groups // max(1, steps))
        open_layers = set(layers[group * len(layers) // groups : (group + 1) * len(layers) // groups])
    else:
        open_layers = set(layers)
    return frozenset(name for name in names if name.rpartition(".")[0] in open_layers)
