"""Numba kernels of the index: arrays in, arrays out, no I/O.

A kernel is compiled, or loaded from the disk, when it is first called: importing one costs nothing, and Numba is imported by
the first call. In `interpreted` code the plain Python of kernels runs instead, or stand-ins of NumPy where they name one.

Numba's disk cache looks at the file that a kernel stands in and not at the files of the kernels that it calls, so after an
upgrade it could run old code inside new. lexmax therefore keeps the compiled kernels of a module in a folder named by a hash of
its source and of the kernel modules that it imports: inside NUMBA_CACHE_DIR when that is set, else beside the package, else in
the user's cache. A change costs the compilation of what it reaches, and of nothing else.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property, update_wrapper
from hashlib import sha256
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

Function = TypeVar("Function", bound=Callable[..., object])
Number = TypeVar("Number", bound=np.generic)

JIT_OFF = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
"""NUMBA_DISABLE_JIT: all kernels run as plain Python, as Numba has it."""
_PACKAGE = Path(__file__).resolve().parents[2]
_OWN = _PACKAGE / "__pycache__" if os.access(_PACKAGE, os.W_OK) else Path.home() / ".cache" / "lexmax"
_IMPORT = re.compile(rb"^[ ]*from (\.[\w.]*) import ", re.MULTILINE)
_lock = threading.RLock()
_plain = JIT_OFF


@contextmanager
def interpreted() -> Iterator[None]:
    """Run kernels as plain Python in all threads, for a command that ends sooner so than Numba is imported."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def is_interpreted() -> bool:
    """Tell whether kernels run as plain Python now."""
    return _plain


class Kernel:
    """A function that Numba compiles at its first call; kernels that call it see the compiled one."""

    def __init__(self, function: Callable[..., Any], stand_in: Callable[..., Any] | None, options: dict[str, Any]) -> None:
        update_wrapper(self, function)
        self.py_func, self.stand_in, self._options = function, stand_in or function, options
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Call what was compiled, or plain Python where code is interpreted."""
        return self.stand_in(*arguments) if _plain else (self._compiled or self.dispatcher)(*arguments)

    @property
    def dispatcher(self) -> Any:
        """Numba's dispatcher, made when it is first needed."""
        with _lock:
            if self._compiled is None:
                self._compiled = _dispatcher(self.py_func, self._options)
            return self._compiled

    @property
    def _numba_type_(self) -> Any:
        """What Numba takes this for where a kernel names it."""
        return self.dispatcher._numba_type_


class Intrinsic:
    """Instructions that a function emits, for kernels: `numba.extending.intrinsic` made when a kernel is first compiled.

    Parameters
    ----------
    emitter : function
        As `numba.extending.intrinsic` takes it.
    stand_in : function
        What interpreted kernels call.
    """

    def __init__(self, emitter: Callable[..., Any], stand_in: Callable[..., Any] | None = None) -> None:
        self._emitter, self._stand_in = emitter, stand_in
        self._type: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the stand-in."""
        if self._stand_in is None:
            raise NotImplementedError(f"{self._emitter.__name__} is for compiled kernels alone")
        return self._stand_in(*arguments)

    @property
    def _numba_type_(self) -> Any:
        with _lock:
            if self._type is None:
                from numba.core import types
                from numba.core.typing.templates import infer, make_intrinsic_template
                from numba.extending import intrinsic

                name = self._emitter.__name__
                handle = intrinsic(self._emitter)
                template = make_intrinsic_template(handle, self._emitter, name)  # type: ignore[no-untyped-call]
                self._type = types.Function(infer(template))  # type: ignore[no-untyped-call]
            return self._type


class Foreign:
    """What Numba brings for kernels, a C function or one of its own: looked up when a kernel is first compiled.

    Parameters
    ----------
    find : function
        Takes Numba and returns it.
    """

    def __init__(self, find: Callable[[Any], Any]) -> None:
        self._find = find

    def __call__(self, *arguments: Any) -> Any:
        """Call it as Python does."""
        return self._find(_numba())(*arguments)

    @cached_property
    def _numba_type_(self) -> Any:
        from numba.core.registry import cpu_target

        return cpu_target.typing_context.resolve_value_type(self._find(_numba()))


class _Compile(Protocol):
    def __call__(self, function: Function) -> Function: ...


def kernel(function: Function) -> Function:
    """Compile with lexmax's one set of options: cached on disk, without the GIL, IEEE division."""
    return cast(Function, Kernel(function, None, {}))


def kernel_or(stand_in: Callable[..., Any]) -> _Compile:
    """Compile as `kernel` does, with a function that does the same where code is interpreted."""

    def compiled(function: Function) -> Function:
        return cast(Function, Kernel(function, stand_in, {}))

    return compiled


def sum_kernel(function: Function) -> Function:
    """Compile sums and maxima of floats that are numbers, in any order: only so are they vectorised.

    The last bits depend on the processor.
    """
    return cast(Function, Kernel(function, None, {"fastmath": {"reassoc", "contract", "nnan", "nsz"}}))


_watchers: list[Callable[[str], None]] = []


@contextmanager
def watched(watcher: Callable[[str], None]) -> Iterator[None]:
    """Call ``watcher`` with the name of each kernel that is compiled, before it is."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


@cache
def _numba() -> Any:
    """Import Numba, and pass on what it compiles to watchers."""
    import numba
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, event: Any) -> None:
            for watcher in tuple(_watchers):
                watcher(event.data["dispatcher"].py_func.__name__)

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Listener())  # type: ignore[no-untyped-call]
    return numba


def _dispatcher(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    numba = _numba()
    elsewhere = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(kernel_folder(function.__module__))
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = elsewhere


@cache
def _digest(name: str) -> str:
    """Hash of the source of a module, and of the kernel modules that it imports."""
    spec = find_spec(name)  # a module that has an emitter imports it only when it compiles
    if spec is None or spec.origin is None:
        return ""
    package = name if spec.submodule_search_locations is not None else spec.parent
    source = Path(spec.origin).read_bytes()
    imported = sorted({resolve_name(each.decode(), package) for each in _IMPORT.findall(source)} - {name})
    return sha256(b"".join([source, *(_digest(each).encode() for each in imported if ".kernels" in each)])).hexdigest()


def kernel_folder(name: str) -> Path:
    """Return where the compiled kernels of a module are kept."""
    return Path(_numba().config.CACHE_DIR or _OWN) / f"kernels-{_digest(name)[:16]}"


def read_only(array: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return a contiguous read-only view, or copy: memory maps are read-only, so kernels are compiled for such arrays alone."""
    flags = array.flags
    if not flags.c_contiguous:
        array = np.ascontiguousarray(array)
    elif not flags.writeable:
        return array
    view = array.view()
    view.setflags(write=False)
    return view
