"""Molecular dynamics: the only place that knows jax-md, whose import takes seconds."""
