"""Proposes compression plans, applies them, judges them, and learns from what was measured."""
