"""Errors of the pipeline, leaves of the tree in `device_bench.errors`.

BadInputError
├── PlanError          a plan does not fit its model; says which unit and why
├── DataError          a data set is missing, damaged or of the wrong form
├── WeightsError       weights do not fit; names the keys
└── ModelError         a model cannot be built, traced or read
RunError
└── ExportError        an export failed or lost parity
"""

from __future__ import annotations

from device_bench.errors import BadInputError, RunError


class PlanError(BadInputError):
    """A plan does not fit its model."""


class DataError(BadInputError):
    """A data set is missing, damaged or of the wrong form."""


class WeightsError(BadInputError):
    """Weights do not fit their model."""


class ModelError(BadInputError):
    """A model cannot be built, traced or read."""


class ExportError(RunError):
    """An export failed, or its output left what torch computes."""
