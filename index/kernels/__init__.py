"""Numba kernels of the index: arrays in, arrays out, no I/O.

Numba's disk cache looks at the file that a kernel stands in and not at the files of the kernels that it calls, so after an
upgrade it could run old code inside new. lexmax therefore keeps its compiled kernels in a folder named by a hash of all
kernel sources: inside NUMBA_CACHE_DIR when that is set, else beside the package, else in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Kernel = TypeVar("Kernel", bound=Callable[..., object])
Number = TypeVar("Number", bound=np.generic)
_config: Any = numba.config


def _cache_folder() -> Path:
    package = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for room in ("index", "retrieval"):
        for source in sorted((package / room / "kernels").glob("*.py")):
            digest.update(source.read_bytes())
    own = package / "__pycache__" if os.access(package, os.W_OK) else Path.home() / ".cache" / "lexmax"
    chosen = _config.CACHE_DIR
    return Path(chosen or own) / f"kernels-{digest.hexdigest()[:16]}"


_CACHE_FOLDER = _cache_folder()


def kernel(function: Kernel) -> Kernel:
    """Compile with lexmax's one set of options: cached on disk, without the GIL, IEEE division."""
    return _compiled(function)


def sum_kernel(function: Kernel) -> Kernel:
    """The same for sums and maxima of floats that are numbers, in any order: only so are they vectorised.

    The last bits depend on the processor.
    """
    return _compiled(function, fastmath={"reassoc", "contract", "nnan", "nsz"})


def _compiled(function: Kernel, **options: Any) -> Kernel:
    elsewhere = _config.CACHE_DIR
    _config.CACHE_DIR = str(_CACHE_FOLDER)
    try:
        return cast(Kernel, numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function))
    finally:
        _config.CACHE_DIR = elsewhere


def read_only(array: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return a contiguous read-only view, or copy: memory maps are read-only, so kernels are compiled for such arrays alone."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
