"""Adapters to the frameworks that people use: one module for each, imported by name."""
