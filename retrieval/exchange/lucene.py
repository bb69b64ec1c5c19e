"""BM25's parameters as programs on Lucene write them.

Lucene's own text ``BM25(k1=0.9,b=0.4)``, which Anserini and Pyserini print, and the settings of Elasticsearch and OpenSearch,
JSON with ``{"type": "BM25", "k1": 0.9, "b": 0.4}`` somewhere inside. Lucene rounds lengths of documents to 8 bits, so rankings
may differ where lengths are nearly alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...index.errors import DatasetError
from ...index.sparse.bm25 import Bm25

K1, B = 1.2, 0.75
"""Defaults of Lucene, Elasticsearch and OpenSearch; Anserini's are 0.9 and 0.4, which it names."""
_TEXT = re.compile(r"(?i)bm25\(\s*k1\s*=\s*([^,\s]+)\s*,\s*b\s*=\s*([^)\s]+)\s*\)")


def lucene_bm25(text: str) -> Bm25:
    """Return the parameters that a text, or a file of settings, states.

    Raises
    ------
    DatasetError
        No parameters there, several different ones, or ones that BM25 cannot have.
    """
    where = text if Path(text).is_file() else None
    content = Path(text).read_text("utf-8") if where else text
    found = [(k1, b) for k1, b in _TEXT.findall(content)] or [
        (each.get("k1", K1), each.get("b", B)) for each in _settings(content)
    ]
    try:
        distinct = {(float(k1), float(b)) for k1, b in found}
        if len(distinct) == 1:
            k1, b = distinct.pop()
            return Bm25(k1=k1, b=b)
        reason = f"{len(distinct)} different ones" if distinct else "none"
    except (TypeError, ValueError) as problem:
        reason = str(problem)
    raise DatasetError(f"expected BM25's parameters, as in BM25(k1=0.9,b=0.4) or settings as JSON: {reason}", path=where)


def _settings(content: str) -> Iterator[Mapping[str, Any]]:
    """Objects of the type BM25, at any depth."""
    try:
        waiting = [json.loads(content)]
    except ValueError:
        return
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            if each.get("type") == "BM25":
                yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
