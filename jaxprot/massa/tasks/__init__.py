"""Downstream tasks: labelled proteins, training and metrics, and the baselines that they are measured by."""
