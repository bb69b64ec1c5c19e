"""Evaluation: datasets, runs, measures, latency."""
