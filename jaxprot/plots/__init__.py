"""Pictures (matplotlib through its object interface, Agg; no jax)."""
