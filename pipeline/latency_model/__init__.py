"""Predicts how long a file would take on a target, from operators that were measured there."""
