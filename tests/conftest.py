"""Numba's disk cache does not see edits in another file, so each state of the sources gets a cache folder of its own."""

import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).parent.parent


def _sources_hash() -> str:
    modes = [os.environ.get(name, "") for name in ("NUMBA_BOUNDSCHECK", "NUMBA_DISABLE_JIT")]
    digest = hashlib.sha256(repr(modes).encode())
    for folder in ("index", "retrieval"):
        for path in [*sorted((ROOT / folder).rglob("kernels/*.py")), ROOT / "index" / "inverted.py"]:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".numba_cache" / _sources_hash()))
