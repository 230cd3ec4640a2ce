"""The command line: one file per system, no numerics."""
