"""Rows of dense vectors: verified before they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import kernel
from .checksums import HasChecked, is_unread, verify_span


@kernel
def verify_rows(checked: HasChecked, first: Any, row_bytes: Any, positions: npt.NDArray[np.int64]) -> None:
    """Verify the rows at some positions of a matrix that begins at byte ``first`` of the content."""
    for position in positions:
        start = first + position * row_bytes
        if is_unread(checked.states, start, start + row_bytes):
            verify_span(checked, start, start + row_bytes)
