"""Learners: what is trained over many tasks, so that a new one needs little."""
