"""Kernels compiled with bounds checks must not be taken from, or left in, the cache of the others."""

import os
from pathlib import Path

if os.environ.get("NUMBA_BOUNDSCHECK"):
    os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parent.parent / ".numba_cache" / "boundscheck"))

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")  # frameworks under test report to nobody
