"""The process of one flow run: `python -m flows.deployments.process`, the command that prefect.yaml names.

It is Prefect's own engine. Under `edgeloop server up` it signs in to the ledger first, so that a run whose
process is killed at any later moment is noticed and goes on.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from pathlib import Path

from flows.deployments.ledger import FOLDER_VARIABLE, Ledger


def run_engine() -> None:
    """Run the flow run that the environment names; ends as Prefect's engine ends."""
    folder = os.environ.get(FOLDER_VARIABLE)
    # As for the command line: modules named as module:callable are found from the working folder.
    sys.path.insert(0, str(Path.cwd()))
    with contextlib.ExitStack() as stack:
        if folder:
            stack.enter_context(Ledger(Path(folder)).signed_in(os.environ["PREFECT__FLOW_RUN_ID"]))
        runpy.run_module("prefect.engine", run_name="__main__")


if __name__ == "__main__":
    run_engine()
