"""What a frozen trunk says of texts, kept on disk: its states are the cost of training a head, and never change.

A cache is a folder for each network, so that runs share it::

    DIR/<digest>/states.bin    float16 states (tokens, hidden) of text after text, only ever appended
    DIR/<digest>/keys.bin      a record a text: hash of its ids, number of tokens

States pass through float16 at their first use too: a run that starts on an empty cache ends as one that finds it filled.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....index.errors import StorageError
from .base import hidden_states

RECORD = np.dtype([("key", "V16"), ("n_tokens", "<u4")])


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
    """

    def __init__(self, folder: Path, digest: str, hidden_size: int) -> None:
        place = folder / digest[:16]
        self._row_bytes = 2 * hidden_size
        try:
            place.mkdir(parents=True, exist_ok=True)
            self._keys, self._states = (
                os.open(place / name, os.O_RDWR | os.O_CREAT, 0o666) for name in ("keys.bin", "states.bin")
            )
            fcntl.flock(self._keys, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(f"{place}: cannot open the states: {error}; is another run using them?") from error
        records = np.fromfile(place / "keys.bin", RECORD)
        ends = np.cumsum(records["n_tokens"], dtype=np.int64)
        # What a kill tore off is dropped: states are written before their keys.
        n_whole = int(np.searchsorted(ends, os.fstat(self._states).st_size // self._row_bytes, side="right"))
        self._n_tokens = int(ends[n_whole - 1]) if n_whole else 0
        os.ftruncate(self._keys, n_whole * RECORD.itemsize)
        os.ftruncate(self._states, self._n_tokens * self._row_bytes)
        starts = ends - records["n_tokens"]
        self._places: dict[bytes, tuple[int, int]] = {
            key.tobytes(): (int(start), int(n))
            for key, start, n in zip(records["key"][:n_whole], starts, records["n_tokens"], strict=False)
        }

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: bytes) -> Tensor | None:
        """States of a text, (n_tokens, hidden_size) float16, when they are here."""
        place = self._places.get(key)
        if place is None:
            return None
        start, n_tokens = place
        content = os.pread(self._states, n_tokens * self._row_bytes, start * self._row_bytes)
        return torch.frombuffer(bytearray(content), dtype=torch.float16).view(n_tokens, -1)

    def add(self, key: bytes, states: Tensor) -> None:
        """Append the float16 states of a text.

        Raises
        ------
        StorageError
            When the disk is full or fails.
        """
        try:
            os.pwrite(self._states, states.contiguous().numpy().tobytes(), self._n_tokens * self._row_bytes)
            record = np.array([(np.void(key), len(states))], RECORD)
            os.pwrite(self._keys, record.tobytes(), len(self._places) * RECORD.itemsize)
        except OSError as error:
            raise StorageError(f"cannot write the states of a frozen trunk: {error}") from error
        self._places[key] = (self._n_tokens, len(states))
        self._n_tokens += len(states)

    def close(self) -> None:
        """Let another run have it."""
        os.close(self._keys)
        os.close(self._states)


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
        for key, states in zip(missing, computed, strict=True):
            found[key] = states.half()
            if cache is not None:
                cache.add(key, found[key].cpu())
    return [found[key].float() for key in keys]


def _key(ids: Sequence[int], n_attended: int, dtype: torch.dtype) -> bytes:
    content = np.array([n_attended, *ids], "<i4").tobytes() + str(dtype).encode()
    return hashlib.blake2b(content, digest_size=16).digest()
