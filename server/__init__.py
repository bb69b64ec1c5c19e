"""The HTTP server over indexes."""
