"""Arm without a board: tells an emulated processor, counts its instructions, and builds such a board."""
