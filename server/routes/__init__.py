"""Addresses: each module adds some to the application."""
