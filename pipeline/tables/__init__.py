"""Recorded tasks: real outcomes of many plans of one model, and models fitted to them that answer at once."""
