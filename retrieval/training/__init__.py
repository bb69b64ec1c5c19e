"""Trains small encoders: losses, data, students, the loop, and the mining and scoring of what they learn from."""
