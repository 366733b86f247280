"""Looking at runs: which there are, what they found, how two differ, and their reports."""
