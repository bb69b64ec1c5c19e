"""Numba kernels of the index: arrays in, arrays out, no I/O.

Numba's disk cache looks at the file that a kernel stands in and not at the files of the kernels that it calls, so after an
upgrade it could run old code inside new. lexmax therefore keeps the compiled kernels of a module in a folder named by a hash of
its source and of the kernel modules that it imports: inside NUMBA_CACHE_DIR when that is set, else beside the package, else in
the user's cache. A change costs the compilation of what it reaches, and of nothing else.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.util import resolve_name
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Kernel = TypeVar("Kernel", bound=Callable[..., object])
Number = TypeVar("Number", bound=np.generic)
_config: Any = numba.config


_PACKAGE = Path(__file__).resolve().parents[2]
_OWN = _PACKAGE / "__pycache__" if os.access(_PACKAGE, os.W_OK) else Path.home() / ".cache" / "lexmax"
_IMPORT = re.compile(rb"^from (\.[\w.]*) import ", re.MULTILINE)


@cache
def _digest(name: str) -> str:
    """Hash of the source of a module, and of the kernel modules that it imports."""
    module = sys.modules[name]
    path = getattr(module, "__file__", None)
    source = Path(path).read_bytes() if path else b""
    imported = sorted({resolve_name(each.decode(), module.__package__ or "") for each in _IMPORT.findall(source)} - {name})
    return sha256(b"".join([source, *(_digest(each).encode() for each in imported if ".kernels" in each)])).hexdigest()


def kernel_folder(name: str) -> Path:
    """Return where the compiled kernels of a module are kept."""
    chosen = _config.CACHE_DIR
    return Path(chosen or _OWN) / f"kernels-{_digest(name)[:16]}"


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
    _config.CACHE_DIR = str(kernel_folder(function.__module__))
    try:
        return cast(Kernel, numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function))
    finally:
        _config.CACHE_DIR = elsewhere


def read_only(array: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return a contiguous read-only view, or copy: memory maps are read-only, so kernels are compiled for such arrays alone."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
