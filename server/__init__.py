"""The HTTP server over one index."""
