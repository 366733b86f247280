"""`python -m flows.cli` is the `edgeloop` command."""

from flows.cli import main

main()
