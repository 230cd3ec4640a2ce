"""Plain numpy objects and tables that every system shares; no jax and no files here."""
