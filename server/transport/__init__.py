"""Connections, bodies and answers in bytes, and the process that holds them."""
