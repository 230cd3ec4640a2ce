"""RMSF-net: flexibility of every atom from a cryo-EM map and a model."""
