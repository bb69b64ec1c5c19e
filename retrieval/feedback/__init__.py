"""Feedback: a log of clicks, and queries that move towards what was clicked."""
