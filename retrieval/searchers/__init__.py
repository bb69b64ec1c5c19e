"""Searchers over a snapshot: `exhaustive` is the oracle, `blockmax` the fast exact one."""
