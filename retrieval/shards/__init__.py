"""Shards: indexes of parts of one collection that answer as one index of all of it."""
