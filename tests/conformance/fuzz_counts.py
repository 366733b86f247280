"""How many cases each kind of fuzzing tried; shown at the end of a run (tests/conftest.py)."""

from __future__ import annotations

from collections import Counter

COUNTS: Counter[str] = Counter()
