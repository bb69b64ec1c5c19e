"""Walking along the graph of nearest documents: what is stored, what is found, what is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from dense_vectors import dense_vectors
from net_queries import make_net_field, random_nets
from token_vectors import clustered

from lexmax import Collection, IndexFormatError
from lexmax.index.array_files import ArrayFile, ArrayFileWriter
from lexmax.index.check import check_index
from lexmax.index.nets import neighbours
from lexmax.index.nets.neighbours import Neighbours, without_selves
from lexmax.index.representations.dense import DenseVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.pipelines.explaining import explain_hits
from lexmax.retrieval.pipelines.expression import parse
from lexmax.retrieval.pipelines.pipeline import Pipeline
from lexmax.retrieval.searchers.net_graph import Effort, walk
from lexmax.retrieval.searchers.nets import NetOptions, NetSearcher
from lexmax.retrieval.searchers.registry import make_options

N_DOCS, DIM, M = 1500, 12, 10
GRAPH = NetOptions(algorithm="graph", n_candidates=16, max_iterations=4)


@pytest.fixture(scope="module")
def vectors():
    return DenseVectors(clustered(np.random.default_rng(1), N_DOCS, DIM))


@pytest.fixture(scope="module")
def queries():
    return random_nets(np.random.default_rng(2), 6, (DIM, 16))


@pytest.fixture(scope="module")
def path(tmp_path_factory, vectors):
    """One large segment with deleted documents, and a small one without a graph."""
    path = tmp_path_factory.mktemp("graph") / "idx"
    make_net_field(path, vectors, (1400,), range(0, N_DOCS, 50), n_neighbours=M)
    return path


@pytest.fixture(scope="module")
def field(path):
    return Snapshot.open(path).field("nets")


def nearest(vectors, m):
    """The m nearest other documents of each, by 64-bit distances."""
    x = vectors.astype(np.float64)
    distances = ((x[:, None] - x[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, axis=1)[:, :m], distances


def test_the_nearest_documents_are_kept_nearest_first(field, vectors):
    large, small = field.segments
    assert small.part.neighbours is None
    found = large.part.neighbours.neighbours
    kept = vectors.vectors[:1400].astype(np.float16)
    expected, distances = nearest(kept, M)
    assert found.shape == (1400, M)
    np.testing.assert_allclose(np.take_along_axis(distances, found.astype(np.int64), 1), expected, rtol=1e-3, atol=1e-5)
    entries = large.part.neighbours.entries
    assert np.all(np.diff(entries) > 0)
    assert 0.3 * 1400 / 32 <= len(entries) <= 1400 // 32
    assert field.info()["n_neighbours"] == M
    assert field.segment_info(large)["n_entries"] == len(entries)


def test_beyond_some_documents_the_nearest_are_looked_for_near_centroids(vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "EXACT_DOCS", 100)
    monkeypatch.setattr(neighbours, "N_PROBE", 8)
    x = vectors.vectors
    neighbours.write_neighbours(tmp_path, N_DOCS, lambda positions: x[positions], M)
    found = Neighbours(tmp_path, N_DOCS, M).neighbours
    expected, distances = nearest(x, M)
    near = np.take_along_axis(distances, found.astype(np.int64), 1) <= expected[:, -1:] + 1e-9
    assert near.mean() > 0.9
    assert not (found == np.arange(N_DOCS)[:, None]).any()


def test_no_document_is_its_own_neighbour():
    found = np.array([[5, 0, 1], [6, 7, 8], [7, 0, -1]])
    assert without_selves(found, 5, 9).tolist() == [[0, 1], [7, 8], [0, 1]]
    crowded = np.array([[3, 4, 5]])  # document 9 has as many doubles as there is room
    assert without_selves(crowded, 9, 20).tolist() == [[3, 4]]


def test_where_a_walk_begins(field):
    kept = field.segments[0].part.neighbours
    n = len(kept.entries)
    assert kept.entry_points(None).tolist() == kept.entries.tolist() == kept.entry_points(n).tolist()
    assert set(kept.entry_points(5).tolist()) < set(kept.entries.tolist())
    more = kept.entry_points(n + 40)
    assert set(kept.entries.tolist()) < set(more.tolist())
    assert n + 30 <= len(more) <= n + 40
    assert len(kept.entry_points(10**6)) == 1400


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_walk_finds_most_and_scores_few_and_its_scores_are_those_of_the_oracle(field, queries, n_threads):
    searcher = NetSearcher(field)
    hits, oracle = searcher.search(queries, 10, options=GRAPH, n_threads=n_threads), searcher.search(queries, 10)
    assert oracle.n_scored is None
    assert 100 < hits.n_scored.min() <= hits.n_scored.max() < 1000
    same = [len(np.intersect1d(hits.query(i)[0], oracle.query(i)[0])) for i in range(6)]
    assert sum(same) >= 0.8 * 60
    for number, scores in enumerate(searcher.score(queries, [hits.query(i)[0] for i in range(6)])):
        assert scores.tobytes() == hits.query(number)[1].tobytes()
        assert (hits.query(number)[0] % 50).all()  # the others are deleted
        assert np.all(np.diff(hits.query(number)[1]) <= 0)


def test_with_enough_effort_it_is_exhaustive(field, queries):
    searcher = NetSearcher(field)
    options = NetOptions(algorithm="graph", n_entry=N_DOCS, n_candidates=N_DOCS)
    hits, oracle = searcher.search(queries, 30, options=options), searcher.search(queries, 30)
    assert hits.doc_nums.tolist() == oracle.doc_nums.tolist()
    assert hits.scores.tobytes() == oracle.scores.tobytes()
    assert hits.n_scored.tolist() == [1400 + 100 - 2] * 6  # deleted documents are walked across, and not scored elsewhere


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_as_many_answers_come_as_documents_are_allowed(field, queries, share):
    rng = np.random.default_rng(3)
    allowed = np.split(rng.random(N_DOCS) < share, [1400])
    hits = NetSearcher(field).search(queries, 40, allowed=allowed, options=GRAPH)
    n_allowed = int(np.concatenate(allowed).sum())
    for number in range(6):
        assert len(hits.query(number)[0]) == min(40, n_allowed)
        assert np.concatenate(allowed)[hits.query(number)[0]].all()


def test_each_round_leaves_the_best_that_were_scored(field):
    """Along a line of documents a walk climbs to the top, a round at a time."""
    segment = field.segments[0]
    part = segment.part
    line = np.array([[max(0, i - 1), min(1399, i + 1)] for i in range(1400)], np.int32)

    class Line:
        neighbours = line

        def entry_points(self, n):
            return np.array([100])

    rounds = []

    def score(positions):
        rounds.append(positions.tolist())
        return -np.abs(positions - 110).astype(np.float32)

    segment = replace(segment, part=type("Part", (), {"neighbours": Line(), "n_docs": part.n_docs})())
    found = walk(segment, score, None, 1, Effort(None, 1, 50))
    assert found.doc_nums[np.argmax(found.scores)] == 110
    assert rounds[:3] == [[100], [99, 101], [102]]
    assert len(rounds) == 12  # the eleventh step finds nothing better
    assert found.n_scored == sum(map(len, rounds))
    assert walk(segment, score, None, 1, Effort(None, 1, 3)).doc_nums.max() == 103


def test_compaction_makes_one_graph_of_what_lives(path, queries, tmp_path):
    shutil.copytree(path, tmp_path / "idx")
    with Collection.open(tmp_path / "idx") as collection:
        collection.compact()
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx", verify=True)
    (segment,) = snapshot.field("nets").segments
    assert segment.part.neighbours.neighbours.shape == (1470, M)
    assert check_index(tmp_path / "idx") == []
    assert NetSearcher(snapshot.field("nets")).search(queries, 10, options=GRAPH).n_scored.max() < 1000


def test_damage_to_the_graph_is_found_before_it_is_walked_along(path, queries, tmp_path):
    shutil.copytree(path, tmp_path / "idx")
    (file,) = (tmp_path / "idx").glob("field-nets-*/neighbours.lex")
    arrays = ArrayFile(file, neighbours.KIND)
    entries, links = arrays.array("entries", "int32", (None,)).copy(), arrays.array("neighbours", "int32", (1400, M)).copy()
    for changed in ((entries, np.where(links == links[0, 0], 1400, links)), (entries - 2000, links), (entries[:0], links)):
        with ArrayFileWriter(file, neighbours.KIND) as out:
            for name, array in zip(("entries", "neighbours"), changed, strict=True):
                out.add(name, array.astype(np.int32))
        found = Neighbours(file.parent, 1400, M)
        with pytest.raises(IndexFormatError, match=r"documents below 1400|expected entries"):
            found.check()
    with pytest.raises(IndexFormatError, match="arrays that fit"):
        Neighbours(file.parent, 1401, M)
    file.unlink()
    assert check_index(tmp_path / "idx")


def test_options_and_fields_that_do_not_go_together(field, queries, tmp_path):
    assert make_options("nets", {"algorithm": "graph", "n_candidates": "64"}).effort == Effort(None, 64, 16)
    for wrong, message in (
        ({"n_candidates": 3}, "n_candidates: for algorithm=graph alone"),
        ({"algorithm": "graph", "max_iterations": 0}, "max_iterations is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make_options("nets", wrong)
    bare = make_net_field(tmp_path / "idx", dense_vectors(np.random.default_rng(1), 20, DIM))
    with pytest.raises(ValueError, match="field nets: algorithm=graph is for fields that were made with n_neighbours"):
        NetSearcher(bare).search(queries, 3, options=GRAPH)


def test_explanations_tell_how_many_documents_were_scored(field, queries):
    for search, stages in (("nets", 1), ("nets:20 > nets", 2)):
        pipeline = Pipeline(parse(search), {"nets": NetSearcher(field)})
        answer = pipeline.run({"nets": queries}, 3, options={"nets": GRAPH}, trace=True)
        explained = explain_hits(pipeline, answer, {"nets": queries}, 2, "", [""] * 3)
        counts = [stage.n_scored for stage in explained[0].stages]
        assert len(counts) == stages
        assert 100 < counts[0] < 1000
        assert counts[1:] == [None] * (stages - 1)
