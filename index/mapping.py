"""Memory maps that hold no file descriptor.

``mmap.mmap`` keeps a duplicate of the descriptor for as long as the map lives, so an index of many segments would use up the
process's limit. POSIX does not need it: the descriptor is closed here as soon as the file is mapped.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from pathlib import Path

import numpy as np

from .arrays import Bytes

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value


def map_file(path: Path) -> Bytes:
    """Map a file read-only; the map ends with the last array over it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if not size:
            return np.empty(0, np.uint8)
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)
    memory = (ctypes.c_uint8 * size).from_address(address)
    weakref.finalize(memory, _libc.munmap, address, size).atexit = False
    mapped: Bytes = np.ctypeslib.as_array(memory)
    mapped.flags.writeable = False
    return mapped


def release_pages(mapped: Bytes) -> None:
    """Let the system drop the pages of a map that `map_file` made; they are read again when they are needed."""
    if len(mapped):
        _libc.madvise(mapped.ctypes.data, mapped.nbytes, mmap.MADV_DONTNEED)


def advise_random(mapped: Bytes) -> None:
    """Tell the system that a map is read here and there, so that it reads no more than what is touched."""
    if len(mapped):
        _libc.madvise(mapped.ctypes.data, mapped.nbytes, mmap.MADV_RANDOM)
