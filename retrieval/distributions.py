"""What an index's fields are made of, as distributions over live documents, and their pictures.

::

    sparse         documents per term (length of its posting list), terms per document
    tokens         tokens per document, documents per centroid's list, the calibration curve
    dense, fde     vectors per list, of fields that have lists

Lists of centroids and vectors count deleted documents too, until a compaction drops them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..index.arrays import Int64s
from ..index.dense.field import DenseField
from ..index.errors import RepresentationError
from ..index.fde.field import FdeField
from ..index.multivector.field import TokenField
from ..index.snapshot import Snapshot
from ..index.sparse.field import SparseField
from .searchers.calibration_record import Calibration

N_BINS = 40
POSTINGS, TERMS, TOKENS = "documents per term", "terms per document", "tokens per document"
CENTROIDS, LISTS = "documents per centroid", "vectors per list"


@dataclass(frozen=True, eq=False)
class FieldDistributions:
    """Distributions of one field.

    Attributes
    ----------
    counts : mapping
        What is counted -> one number for each term, document or list.
    calibration : Calibration or None
        Recall by time, of a token field that was calibrated.
    """

    counts: Mapping[str, Int64s]
    calibration: Calibration | None = None


def distributions(snapshot: Snapshot) -> dict[str, FieldDistributions]:
    """Count postings, terms, tokens and lists of each field; fields without any are left out."""
    found: dict[str, FieldDistributions] = {}
    for name, field in snapshot.fields.items():
        if isinstance(field, SparseField):
            found[name] = FieldDistributions(_sparse(field))
        elif isinstance(field, TokenField):
            found[name] = FieldDistributions(_tokens(field), Calibration.of(field))
        elif isinstance(field, DenseField | FdeField):
            found[name] = FieldDistributions(_lists(field))
    return {name: each for name, each in found.items() if each.counts}


def _sparse(field: SparseField) -> dict[str, Int64s]:
    terms = [segment.inverted.terms for segment in field.segments]
    if not terms:
        return {}
    numbers = np.unique(np.concatenate(terms)).astype(np.int32)
    postings = field.document_frequencies(numbers)
    widths = [_live(np.diff(segment.inverted.arrays.forward_indptr), segment) for segment in field.segments]
    return {POSTINGS: postings[postings > 0], TERMS: np.concatenate(widths)}


def _tokens(field: TokenField) -> dict[str, Int64s]:
    if not field.segments:
        return {}
    widths = [_live(np.diff(segment.part.offsets), segment) for segment in field.segments]
    lists = [np.diff(segment.part.list_starts) for segment in field.segments]
    return {TOKENS: np.concatenate(widths), CENTROIDS: np.sum(lists, axis=0, dtype=np.int64)}


def _lists(field: DenseField | FdeField) -> dict[str, Int64s]:
    lists = [np.diff(segment.part.lists.starts) for segment in field.segments if segment.part.lists is not None]
    return {LISTS: np.concatenate(lists)} if lists else {}


def _live(widths: Int64s, segment: Any) -> Int64s:
    return widths if segment.live is None else widths[segment.live]


def plot_distributions(snapshot: Snapshot, path: Path | str) -> None:
    """Write a picture (PNG, SVG or PDF by its suffix), a row of panels per field.

    Raises
    ------
    RepresentationError
        No field has anything to show.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = distributions(snapshot)
    if not found:
        raise RepresentationError(f"{snapshot.path}: no field has postings, tokens or lists to show")
    n_columns = max(len(each.counts) + (each.calibration is not None) for each in found.values())
    figure = Figure(figsize=(4.2 * n_columns, 3 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(found), n_columns, squeeze=False)
    for (name, each), line in zip(found.items(), panels, strict=True):
        for axes in line[len(each.counts) + (each.calibration is not None) :]:
            axes.set_axis_off()
        for (what, counts), axes in zip(each.counts.items(), line, strict=False):
            _histogram(axes, counts)
            axes.set_title(f"{name}: {what}", fontsize=9)
        if each.calibration is not None:
            _curve(line[len(each.counts)], each.calibration)
            line[len(each.counts)].set_title(f"{name}: calibration", fontsize=9)
    figure.savefig(path, dpi=130)


def _histogram(axes: Any, counts: Int64s) -> None:
    """Draw how many have each number, in bins of equal ratio; the median and the mean are named."""
    largest = max(1, int(counts.max(initial=1)))
    edges = np.unique(np.round(np.geomspace(1, largest + 1, N_BINS + 1)).astype(np.int64))
    axes.hist(np.maximum(counts, 1), bins=edges if len(edges) > 1 else np.array([1, 2]), color="tab:blue")
    axes.set_xscale("log")
    axes.set_yscale("log")
    typical = f"median {np.median(counts):,.0f}, mean {counts.mean():,.1f}" if len(counts) else "none"
    axes.set_xlabel(f"n = {len(counts):,}: {typical}, largest {counts.max(initial=0):,}", fontsize=8)


def _curve(axes: Any, record: Calibration) -> None:
    """Draw recall by CPU time of the settings that were tried, with standard errors."""
    efforts = sorted(record.efforts, key=lambda each: each.cpu_ms)
    times, recalls = [each.cpu_ms for each in efforts], [each.recall for each in efforts]
    axes.errorbar(times, recalls, yerr=[each.error for each in efforts], color="tab:red", marker="o", capsize=2, linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("CPU ms per query", fontsize=8)
    axes.set_ylabel(f"recall@{record.k}", fontsize=8)
    axes.grid(alpha=0.3)
