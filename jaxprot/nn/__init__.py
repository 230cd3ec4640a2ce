"""Layers shared by systems, and the runner that compiles them."""
