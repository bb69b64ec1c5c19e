"""Other packages under comparison, each through its own Python interface: BMP, Seismic, SINDI, impact-index.

What the interfaces take (a dict, an array of strings) is prepared outside the timing; what they do with it inside a call is
theirs. BMP (SIGIR 2024) is exact here with alpha = beta = 1; Seismic (SIGIR 2024) is approximate, so it is tried with several
settings; SINDI (arXiv 2509.08395) is exact without its pruning and 8 bits; impact-index answers exactly with block-max
MaxScore.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .engines import Engine, Opened, build_lexmax, build_posting_lists, open_lexmax, open_naive_scan, open_scipy
from .timing import Search
from .workload import Query, Rows

BMP_BLOCKS = (8, 16, 32)
SINDI_WINDOW, MAX_SINDI_TERMS = 50_000, 4096
"""Documents of a window, as its makers set it, and terms that a document may have."""
SEISMIC_BUILD = {
    "n_postings": 4000, "centroid_fraction": 0.2, "summary_energy": 0.5, "max_fraction": 4.0, "min_cluster_size": 2,
    "doc_cut": 15,
}  # fmt: skip
"""What its makers found best on MS MARCO for SPLADE and recall of .99, with twice the memory of the vectors."""
SEISMIC_SETTINGS = ((10, 0.9), (12, 0.8), (6, 0.8), (10, 0.7), (20, 0.8), (20, 0.7))
"""(query_cut, heap_factor): the terms of a query that are looked up, and how soon a cluster is skipped. Its makers tuned the
first four, for recall of .95, .97 and, of two sizes, .99; the others go further."""


def build_bmp(rows: Rows, folder: Path, *, block_size: int) -> float:
    """Build with compressed block maxima; the package takes documents one by one, which is part of the time."""
    from bmp import Indexer

    names = [str(term) for term in range(int(rows.terms.max()) + 1)]
    start = time.perf_counter()
    indexer = Indexer(str(folder / "index.bmp"), block_size, True)
    for number in range(len(rows)):
        span = slice(int(rows.indptr[number]), int(rows.indptr[number + 1]))
        terms = [names[term] for term in rows.terms[span].tolist()]
        indexer.add_document(str(number), dict(zip(terms, rows.impacts[span].tolist(), strict=True)))
    indexer.finish()
    return time.perf_counter() - start


def open_bmp(folder: Path, *, block_size: int) -> Opened:
    """Open for exact search; its wheel stretches weights to 1..32, which ours are already.

    Where no block can beat its estimated threshold, BMP 0.2.8 panics; that query then has an empty answer.
    """
    from bmp import Searcher

    os.environ["RUST_BACKTRACE"] = "0"  # a trace on each panic would be timed with the query
    searcher = Searcher(str(folder / "index.bmp"))

    def search(query: dict[str, float], k: int) -> Any:
        try:
            return searcher.search(query, k, 1.0, 1.0)
        except BaseException as failure:  # a Rust panic is no Exception, and its type cannot be imported
            if type(failure).__name__ != "PanicException":
                raise
            return [], []

    return Opened(
        searches={f"bmp-{block_size}": search},
        prepare=lambda query: dict(zip(map(str, query.terms.tolist()), map(float, query.weights.tolist()), strict=True)),
        documents=lambda found: np.array(found[0], np.int64),
    )


def build_seismic(rows: Rows, folder: Path) -> float:
    """Build as its makers tuned it, in one thread."""
    from seismic import SeismicDataset, SeismicIndex

    dataset = SeismicDataset()
    doc_ids = [str(number) for number in range(len(rows))]
    terms, impacts = rows.terms.astype(np.int64), rows.impacts.astype(np.float32)
    dataset.add_documents_by_id(doc_ids, terms, impacts, np.array(rows.indptr))
    start = time.perf_counter()
    index = SeismicIndex.build_from_dataset(dataset, num_threads=1, **SEISMIC_BUILD)
    elapsed = time.perf_counter() - start
    index.save(str(folder / "index"))
    return elapsed


def open_seismic(folder: Path) -> Opened:
    """Open for all settings."""
    from seismic import SeismicIndex, get_seismic_string

    index = SeismicIndex.load(str(folder / "index.index.seismic"))
    strings = get_seismic_string()

    def setting(query_cut: int, heap_factor: float) -> Search:
        return lambda query, k: index.search("q", query[0], query[1], k, query_cut, heap_factor, 0, True)

    def prepare(query: Query) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float32]]:
        return np.array([str(term) for term in query.terms.tolist()], dtype=strings), query.weights.astype(np.float32)

    return Opened(
        searches={f"seismic-cut{cut}-heap{factor}": setting(cut, factor) for cut, factor in SEISMIC_SETTINGS},
        prepare=prepare,
        documents=lambda found: np.array([doc_id for _, _, doc_id in found], np.int64),
    )


def _sindi(n_terms: int) -> Any:
    """Return an empty index without pruning and without quantisation, which is exact."""
    from pyvsag import Index

    settings = {
        "term_id_limit": n_terms, "window_size": SINDI_WINDOW, "doc_prune_ratio": 0.0, "use_quantization": False,
        "use_reorder": False, "remap_term_ids": False,
    }  # fmt: skip
    facts = {"dtype": "sparse", "metric_type": "ip", "dim": MAX_SINDI_TERMS, "index_param": settings}
    return Index("sindi", json.dumps(facts))


def build_sindi(rows: Rows, folder: Path) -> float:
    """Build and save."""
    n_terms = int(rows.terms.max()) + 1
    offsets, numbers = rows.indptr.astype(np.uint32), np.arange(len(rows), dtype=np.int64)
    terms, impacts = rows.terms.astype(np.uint32), rows.impacts.astype(np.float32)
    start = time.perf_counter()
    index = _sindi(n_terms)
    index.build(index_pointers=offsets, indices=terms, values=impacts, ids=numbers)
    index.save(str(folder / "index"))
    elapsed = time.perf_counter() - start
    (folder / "n_terms").write_text(str(n_terms))
    return elapsed


def open_sindi(folder: Path) -> Opened:
    """Open for exact search: every candidate, no term left out."""
    index = _sindi(int((folder / "n_terms").read_text()))
    index.load(str(folder / "index"))

    def search(query: tuple[Any, ...], k: int) -> Any:
        options = {"n_candidate": k, "query_prune_ratio": 0.0, "term_prune_ratio": 0.0}
        return index.knn_search(*query, k, json.dumps({"sindi": options}))

    def prepare(query: Query) -> tuple[Any, ...]:
        offsets = np.array([0, len(query.terms)], np.uint32)
        return offsets, query.terms.astype(np.uint32), query.weights.astype(np.float32)

    def documents(found: Any) -> npt.NDArray[np.int64]:
        numbers = np.asarray(found[0], np.int64).ravel()
        return numbers[numbers >= 0]

    return Opened(searches={"sindi": search}, prepare=prepare, documents=documents)


def build_impact_index(rows: Rows, folder: Path) -> float:
    """Build, then compress without loss in blocks of 128 postings, as the package advises."""
    from impact_index import IndexBuilder

    raw = folder / "raw"
    start = time.perf_counter()
    builder = IndexBuilder(str(raw), None, "int32")
    for number in range(len(rows)):
        span = slice(int(rows.indptr[number]), int(rows.indptr[number + 1]))
        builder.add(number, rows.terms[span].astype(np.uintp), rows.impacts[span].astype(np.float32))
    builder.build(False).compress(str(folder / "packed"), 128, 0, False)
    elapsed = time.perf_counter() - start
    shutil.rmtree(raw)
    return elapsed


def open_impact_index(folder: Path) -> Opened:
    """Open in memory for block-max MaxScore."""
    from impact_index import Index

    index = Index.load(str(folder / "packed"), True)
    return Opened(
        searches={"impact-index": lambda query, k: index.search_maxscore(query, k)},
        prepare=lambda query: dict(zip(query.terms.tolist(), map(float, query.weights.tolist()), strict=True)),
        documents=lambda found: np.array([document.docid for document in found], np.int64),
    )


ENGINES: dict[str, Engine] = {
    "lexmax": Engine(build=build_lexmax, open=open_lexmax, distributions=["lexmax", "numba", "numpy"]),
    "naive-scan": Engine(build=partial(build_posting_lists, dtype=np.uint8), open=open_naive_scan),
    "scipy": Engine(
        build=partial(build_posting_lists, dtype=np.float32), open=open_scipy, package="scipy", distributions=["scipy"]
    ),
    **{
        f"bmp-{size}": Engine(
            build=partial(build_bmp, block_size=size),
            open=partial(open_bmp, block_size=size),
            package="bmp",
            distributions=["bmp"],
        )
        for size in BMP_BLOCKS
    },
    "seismic": Engine(build=build_seismic, open=open_seismic, package="seismic", distributions=["pyseismic-lsr"]),
    "sindi": Engine(build=build_sindi, open=open_sindi, package="pyvsag", distributions=["pyvsag"]),
    "impact-index": Engine(
        build=build_impact_index, open=open_impact_index, package="impact_index", distributions=["impact-index"]
    ),
}
"""Every engine of `lexmax bench sparse`, by the name that ``--engines`` takes."""
