"""What a misspelt name may have meant."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message, ``"; did you mean 'bm25'?"``, or nothing where no known name is close.

    >>> did_you_mean("bm52", ["bm25", "splade"])
    "; did you mean 'bm25'?"
    """
    from difflib import get_close_matches

    close = get_close_matches(name[:100], [*known], n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
