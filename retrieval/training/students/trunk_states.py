"""What a frozen trunk says of texts, kept on disk: its states are the cost of training a head, and never change.

A cache is a folder for each network, so that runs share it::

    DIR/<digest>/states.bin    float16 states (tokens, hidden) of text after text, only ever appended
    DIR/<digest>/keys.bin      a record a text: hash of its ids, number of tokens

States pass through float16 at their first use too, so a run that is repeated on what it cached, or goes on after a kill,
ends bit for bit as it would have. (A cache that other runs filled may differ in last bits: they padded texts otherwise.)
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....index.errors import IndexFormatError, StorageError
from .base import hidden_states

KEYS, STATES = "keys.bin", "states.bin"
RECORD = np.dtype([("key", "V16"), ("n_tokens", "<u4")])
MOST_TOKENS = 1 << 20  # no network reads so many; files of other content say more


class StateCache:
    """States of texts, by what the network read.

    Parameters
    ----------
    folder : Path
        Of all networks' caches; made when it is not there.
    digest : str
        Hash of the network.
    hidden_size : int

    Raises
    ------
    StorageError
        The folder cannot be written, or another run has the cache open.
    IndexFormatError
        The files are not of a cache; they are left alone.
    """

    def __init__(self, folder: Path, digest: str, hidden_size: int) -> None:
        self.folder = folder / digest[:16]
        self._row_bytes = 2 * hidden_size
        with ExitStack() as opened:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._keys, self._states = (opened.enter_context(_open(self.folder / name)) for name in (KEYS, STATES))
                fcntl.flock(self._keys, fcntl.LOCK_EX | fcntl.LOCK_NB)
                content = self._keys.readall()
                n_rows = self._states.seek(0, os.SEEK_END) // self._row_bytes
            except OSError as error:
                raise StorageError(f"{self.folder}: cannot open the states: {error}; is another run using them?") from error
            records = np.frombuffer(content[: len(content) // RECORD.itemsize * RECORD.itemsize], RECORD)
            if ((records["n_tokens"] == 0) | (records["n_tokens"] > MOST_TOKENS)).any():
                raise IndexFormatError(
                    self.folder / KEYS, expected="records of a state cache", found="other content", advice="remove the folder"
                )
            # What a kill tore off is dropped: states are written before their keys.
            ends = np.cumsum(records["n_tokens"], dtype=np.int64)
            n_whole = int(np.searchsorted(ends, n_rows, side="right"))
            self._n_tokens = int(ends[n_whole - 1]) if n_whole else 0
            self._keys.truncate(n_whole * RECORD.itemsize)
            self._states.truncate(self._n_tokens * self._row_bytes)
            opened.pop_all()  # from here on it is the cache's to close
        starts = ends - records["n_tokens"]
        self._places: dict[bytes, tuple[int, int]] = {
            key.tobytes(): (int(start), int(n))
            for key, start, n in zip(records["key"][:n_whole], starts, records["n_tokens"], strict=False)
        }

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: bytes) -> Tensor | None:
        """States of a text, (n_tokens, hidden_size) float16, when they are here.

        Raises
        ------
        StorageError
            When they cannot be read any more.
        """
        place = self._places.get(key)
        if place is None:
            return None
        start, n_tokens = place
        offset, n_bytes = start * self._row_bytes, n_tokens * self._row_bytes
        try:
            content = os.pread(self._states.fileno(), n_bytes, offset)
        except OSError as error:
            raise StorageError(f"{self.folder / STATES}, offset {offset}: cannot be read: {error}") from error
        if len(content) < n_bytes:
            raise StorageError(f"{self.folder / STATES}, offset {offset}: {len(content)} bytes of {n_bytes}: remove the folder")
        return torch.frombuffer(bytearray(content), dtype=torch.float16).view(n_tokens, -1)

    def add(self, keys: Sequence[bytes], states: Sequence[Tensor]) -> None:
        """Append the float16 states of new texts, together, so that a kill leaves all of a batch or, all but always, none.

        Raises
        ------
        StorageError
            When the disk is full or fails.
        """
        counts = [len(rows) for rows in states]
        records = np.array([(np.void(key), n) for key, n in zip(keys, counts, strict=True)], RECORD)
        content = b"".join(rows.numpy().tobytes() for rows in states)
        try:
            _write(self._states, content, self._n_tokens * self._row_bytes)
            _write(self._keys, records.tobytes(), len(self._places) * RECORD.itemsize)
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot write the states of a frozen trunk: {error}") from error
        for key, n_tokens in zip(keys, counts, strict=True):
            self._places[key] = (self._n_tokens, n_tokens)
            self._n_tokens += n_tokens

    def close(self) -> None:
        """Let another run have it."""
        self._keys.close()
        self._states.close()


def _open(path: Path) -> FileIO:
    return FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")


def _write(file: FileIO, content: bytes, offset: int) -> None:
    """Write all of it: the system may take a part, and say only at the next try that the disk is full."""
    file.seek(offset)
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def frozen_states(
    network: Any, ids: Sequence[Sequence[int]], padding_id: int, cache: StateCache | None,
    attended: Sequence[int] | None = None,
) -> list[Tensor]:  # fmt: skip
    """States of texts from a network that does not learn; each distinct text is computed once.

    Parameters
    ----------
    network, ids, padding_id, attended
        As `.base.hidden_states` takes them; the network is in eval mode.
    cache : StateCache or None
        Asked first, and told what is new.

    Returns
    -------
    list of (len(ids[i]), hidden) float32
        Rounded through float16, without a gradient.
    """
    kind = next(network.parameters()).device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    keys = [_key(row, len(row) if attended is None else attended[i], dtype) for i, row in enumerate(ids)]
    found = {key: states for key in set(keys) if cache is not None and (states := cache.get(key)) is not None}
    missing = {key: i for i, key in enumerate(keys) if key not in found}
    if missing:
        rows = list(missing.values())
        with torch.no_grad():
            computed = hidden_states(
                network, [ids[i] for i in rows], padding_id, None if attended is None else [attended[i] for i in rows]
            )
        rounded = [states.half() for states in computed]
        found.update(zip(missing, rounded, strict=True))
        if cache is not None:
            cache.add(list(missing), [states.cpu() for states in rounded])
    device = next(network.parameters()).device
    return [found[key].to(device).float() for key in keys]


def _key(ids: Sequence[int], n_attended: int, dtype: torch.dtype) -> bytes:
    content = np.array([n_attended, *ids], "<i4").tobytes() + str(dtype).encode()
    return hashlib.blake2b(content, digest_size=16).digest()
