"""Jittable numerics without parameters, shared by the systems."""
