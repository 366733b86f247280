"""Measuring by hand: `bench`, `calibrate`, and the boards a user knows by name."""
