"""A field of encodings finds what inner products of its formulas' encodings order first, whatever was added and deleted."""

import os
import tempfile

import numpy as np
from corpora import documents
from fde_oracles import oracle
from hypothesis import example, given, settings
from hypothesis import strategies as st
from token_vectors import TOKEN_ENCODER, token_vectors

from lexmax.index.check import check_index
from lexmax.index.collection import Collection, NewField
from lexmax.index.fde.config import FdeConfig
from lexmax.index.multivector.config import MultiVectorConfig
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers.registry import field_searcher, make_options

DIM = 16
N_EXAMPLES = int(os.environ.get("LEXMAX_EXAMPLES", "40")) // 4
CONFIGS = [
    {"n_cells": 3}, {"n_cells": 5, "values": "mean"}, {"cells": "simhash", "n_repetitions": 3, "n_planes": 2, "inner_dim": 4},
    {"cells": "simhash", "n_repetitions": 2, "n_planes": 3, "inner_dim": None, "final_dim": 24},
]  # fmt: skip


@example(seed=351, chosen=CONFIGS[2], n_docs=19, cut=5, deleted=set(), compacted=False, k=4)
@settings(max_examples=N_EXAMPLES, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), chosen=st.sampled_from(CONFIGS), n_docs=st.integers(1, 30), cut=st.integers(0, 30),
    deleted=st.sets(st.integers(0, 29), max_size=6), compacted=st.booleans(), k=st.integers(1, 12),
)  # fmt: skip
def test_search_is_the_oracles(seed, chosen, n_docs, cut, deleted, compacted, k):
    rng = np.random.default_rng(seed)
    vectors, queries = token_vectors(rng, rng.integers(0, 12, n_docs), DIM), token_vectors(rng, [0, 3, 9], DIM)
    config = FdeConfig(of="tokens", token_dim=DIM, **chosen)
    options = {"encoding": config.options(), "vectors": {"dim": config.dim, "keep": "float32"}}
    fields = {
        "fde": NewField(encoder=TOKEN_ENCODER, representation="fde", options=options),
        "tokens": NewField(encoder=TOKEN_ENCODER, representation="tokens", options={**vars(MultiVectorConfig(dim=DIM))}),
    }
    cut = min(n_docs, max(cut, n_docs // 4 + 1))  # of later commits: none that trains again
    docs, live = documents(n_docs), [i for i in range(n_docs) if i not in deleted]
    with tempfile.TemporaryDirectory() as folder:
        with Collection.create(f"{folder}/index", fields) as collection:
            for first, last in ((0, cut), (cut, n_docs)):
                if first < last:
                    collection.add(docs[first:last], {"tokens": vectors.select(np.arange(first, last))})
                    collection.commit()
            collection.delete([f"d{i}" for i in deleted if i < n_docs])
            if compacted:
                collection.compact()
            collection.commit()
        assert check_index(f"{folder}/index") == []
        snapshot = Snapshot.open(f"{folder}/index")
        field = snapshot.field("fde")
        if not live:
            return
        searcher = field_searcher(field)
        asked = searcher.vectors(queries)
        buffered = [vectors.row(i).astype(np.float16).astype(np.float32) for i in live]  # a rounded token may change its cell
        rows = np.array([oracle(field.encoding, row, is_query=False) for row in buffered])
        mean = getattr(field.encoding, "mean", 0)
        for options in (None, make_options(searcher, {"algorithm": "exhaustive"})):
            hits = searcher.search(asked, k, options=options)
            assert not len(hits.query(0)[0])  # a query without tokens
            for number in (1, 2):
                expected = (rows - mean) @ oracle(field.encoding, queries.row(number), is_query=True)
                doc_nums, scores = hits.query(number)
                found = [live.index(int(doc_id[1:])) for doc_id in snapshot.doc_ids(doc_nums.tolist())]
                assert len(set(found)) == len(found) == min(k, len(live))
                slack = 0.02 * (1 + np.abs(expected).max())
                assert np.allclose(scores, expected[found], atol=slack)
                assert expected[found].min() >= np.sort(expected)[::-1][len(found) - 1] - 2 * slack
                scored = searcher.score(asked, [doc_nums] * 3)[number]
                assert np.array_equal(scored, scores)
