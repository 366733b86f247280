"""Prefect flows that drive the loop, and the command line."""
