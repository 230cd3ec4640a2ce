"""Prediction over very many inputs: a job of items, the folder of parts that survives a kill, workers on Ray."""
