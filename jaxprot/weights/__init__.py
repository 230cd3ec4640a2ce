"""Weights: the registry of files, a reader of PyTorch files that runs no code, conversion tables, portable files."""
