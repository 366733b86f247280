"""Flows when nobody is at the keyboard: Prefect's server and worker on this machine, and what they run."""
