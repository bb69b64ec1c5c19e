"""Shards answer as one index does: documents, scores and ties, in every field and in expressions, with filters and deletes."""

import numpy as np
import pytest
from corpora import random_vectors
from dense_vectors import dense_vectors
from several_fields import Fields, counted
from sparse_token_vectors import sparse_tokens
from token_vectors import token_vectors

from lexmax.index.collection import Collection
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.pipelines.expression import parse
from lexmax.retrieval.pipelines.pipeline import Pipeline
from lexmax.retrieval.searchers.registry import field_searcher
from lexmax.retrieval.shards import manifest as sets
from lexmax.retrieval.shards.building import bm25_statistics, commit, give_statistics
from lexmax.retrieval.shards.changing import compact_shards, delete_from_shards
from lexmax.retrieval.shards.snapshot import ShardedSnapshot

N = 120
EXHAUSTIVE = {"slim": {"algorithm": "exhaustive"}}
SEARCHES = [
    "bm25", "splade", "dense", "slim", "colbert", "bm25 + splade", "0.3*bm25 + 0.7*dense", "(bm25 + splade):30 > colbert",
    "(bm25 + dense) > 0.5*splade + 0.5*slim",
]  # fmt: skip
FILTERS = [None, "number >= 20 and number < 95", {"number": 7}]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Fields, an index that the others share trained state with, and one of all documents."""
    fields, folder = Fields(N, seed=5), tmp_path_factory.mktemp("whole")
    with Collection.create(folder / "seed", fields.new) as seed:
        seed.add(*fields.batch(*range(0, N, 2)))
        seed.commit()
    with Collection.create(folder / "one", fields.new, like=folder / "seed") as one:
        one.add(*fields.batch(*range(N)))
        one.commit()
    return fields, folder


def shards(path, fields, seed, n_shards):
    """A set of ``n_shards`` runs of the documents."""
    cuts = [N * number // n_shards for number in range(n_shards + 1)]
    folders = [path / f"shard-{number}" for number in range(n_shards)]
    for folder, first, last in zip(folders, cuts, cuts[1:], strict=False):
        with Collection.create(folder, fields.new, like=seed) as shard:
            shard.add(*fields.batch(*range(first, last)))
            shard.commit()
    for arguments in bm25_statistics(folders):
        give_statistics(*arguments)
    commit(path, sets.ShardManifest(shards=[], search="bm25"), folders)
    return folders


def delete(path, doc_ids):
    with Collection.open(path) as index:
        index.delete(doc_ids)
        index.commit()
        index.compact()
        index.commit()


def queries(seed, n=6):
    rng = np.random.default_rng(seed)
    return {
        "bm25": counted(rng, n), "splade": random_vectors(rng, n, 40, 12), "dense": dense_vectors(rng, n),
        "colbert": token_vectors(rng, rng.integers(1, 6, n)), "slim": sparse_tokens(rng, rng.integers(1, 5, n)),
    }  # fmt: skip


def answers(snapshot, search, asked, k, filter):
    parsed = parse(search)
    made = snapshot.searcher if isinstance(snapshot, ShardedSnapshot) else lambda name, _: field_searcher(snapshot.field(name))
    searchers = {name: made(name, None) for name in parsed.fields}
    ready = {name: searchers[name].vectors(asked[name]) for name in parsed.fields}
    options = {name: each for name, each in EXHAUSTIVE.items() if name in parsed.fields}
    allowed = None if filter is None else snapshot.masks(filter)
    hits = Pipeline(parsed, searchers).run(ready, k, allowed=allowed, options=options, n_threads=2).hits
    found = [hits.query(number) for number in range(len(hits))]
    return [list(zip(snapshot.doc_ids(doc_nums.tolist()), scores.tolist(), strict=True)) for doc_nums, scores in found]


@pytest.mark.parametrize("n_shards", [1, 2, 7, 16])
def test_shards_answer_as_one_index(tmp_path, collection, n_shards):
    fields, folder = collection
    one = tmp_path / "one"
    with Collection.create(one, fields.new, like=folder / "seed") as index:
        index.add(*fields.batch(*range(N)))
        index.commit()
    path = tmp_path / "set"
    path.mkdir()
    shards(path, fields, folder / "seed", n_shards)
    gone = [f"d{number}" for number in range(3, N, 11)]
    for deleted in ([], gone):
        if deleted:
            delete(one, deleted)
            assert delete_from_shards(path, [*deleted, "nothing"]) == ["nothing"]
            compact_shards(path)
        whole, together = Snapshot.open(one), ShardedSnapshot.open(path)
        assert together.n_docs == whole.n_docs == N - len(deleted)
        for filter in FILTERS:
            for k in (1, 10, 200):
                for search in SEARCHES:
                    asked = queries(17 + k)
                    assert answers(together, search, asked, k, filter) == answers(whole, search, asked, k, filter), (search, k)
        assert together.find(["d5", gone[0], "nothing"]).tolist() == whole.find(["d5", gone[0], "nothing"]).tolist()
        assert together.get_many([5, 0, whole.n_docs - 1]) == whole.get_many([5, 0, whole.n_docs - 1])


def test_a_shard_that_was_trained_by_itself_is_refused(tmp_path, collection):
    fields, folder = collection
    path = tmp_path / "set"
    path.mkdir()
    folders = shards(path, fields, folder / "seed", 2)
    with Collection.create(path / "other", fields.new) as index:
        index.add(*fields.batch(*range(10)))
        index.commit()
    commit(path, sets.read(path), [*folders, path / "other"])
    with pytest.raises(Exception, match="trained by itself"):
        ShardedSnapshot.open(path)
