"""Searches with a click log against Counterfactual Rocchio's formula in float64, impression by impression."""

import copy

import numpy as np
import pytest
from hashed_tokens import HashedTexts, HashedTokens

from lexmax import Retriever, build_index
from lexmax.index.errors import DatasetError
from lexmax.index.representations.dense import DenseVectors
from lexmax.retrieval.feedback.clicks import Impression
from lexmax.retrieval.feedback.log import ClickLog
from lexmax.retrieval.feedback.moving import Feedback
from lexmax.retrieval.feedback.rocchio import Neighbourhood, Rocchio, document_terms, is_movable, joined, unit
from lexmax.retrieval.searchers.registry import field_searcher

WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay", "koi", "lynx", "mole", "newt", "owl", "pig"]
TEXTS = [" ".join(np.random.default_rng(i).choice(WORDS, 6)) for i in range(60)]
QUERIES = [" ".join(np.random.default_rng(900 + i).choice(WORDS, 3 + i % 4, replace=False)) for i in range(12)]
ENCODERS = {"tokens": HashedTokens(), "fde": "muvera,of=tokens,n_cells=4,n_samples=200", "dense": HashedTexts(), "bm25": "bm25"}
GIVEN = {"tokens": HashedTokens(), "fde": HashedTokens(), "dense": HashedTexts()}
FIELDS = ["dense", "fde", "bm25"]
ALL = 60


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "i"
    build_index(documents=[{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS)], out=path, encoders=ENCODERS)
    with Retriever.open(path, search="bm25", encoders=GIVEN) as retriever:
        retriever.delete(["d59"])
    return path


@pytest.fixture
def log(tmp_path):
    return ClickLog(tmp_path / "clicks.log", create=True)


@pytest.fixture
def opened(index, log):
    def open_(search="dense", **more):
        return Retriever.open(index, search=search, encoders=GIVEN, **({"clicks": log} | more))

    return open_


def impressions(queries, *, seed=5, n=40, first_rank=1):
    """Users who click at random; ``d59`` is deleted and ``gone`` never was there."""
    rng = np.random.default_rng(seed)
    names = [*(f"d{i}" for i in range(ALL)), "gone"]
    found = []
    for _ in range(n):
        shown = rng.choice(names, 6, replace=False).tolist()
        clicked = [doc_id for doc_id in shown if rng.random() < 0.3]
        found.append(Impression(query=str(rng.choice(queries)), shown=shown, clicked=clicked, first_rank=first_rank))
    return found


def document_vector(retriever, name, doc_id):
    """A document as a query of the field, float64 over dims or terms."""
    field, (doc_num,) = retriever.snapshot.field(name), retriever.snapshot.find([doc_id]).tolist()
    if doc_num < 0:
        return None
    if name == "bm25":
        vector = np.zeros(len(field.vocabulary))
        terms, weights = document_terms(field, doc_num)
        vector[terms] = weights
        return vector
    return (field.dense if name == "fde" else field).document_vector(doc_num).astype(np.float64)


def ready(retriever, name, text):
    vectors = field_searcher(retriever.snapshot.field(name)).vectors(retriever.encode([text], name)[name])
    if name != "bm25":
        return vectors.row(0).astype(np.float64)
    row = np.zeros(len(retriever.snapshot.field(name).vocabulary))
    row[vectors.row(0)[0]] = vectors.row(0)[1]
    return row


def f_of(retriever, name, query, logged, eta, length):
    """1/N sum over impressions and clicks of d / p, p = (1/r)^eta."""
    mine = [each for each in logged if each.query == query]
    total = 0.0
    for each in mine:
        for doc_id in each.clicked:
            vector = document_vector(retriever, name, doc_id)
            if vector is not None:
                rank = each.first_rank + each.shown.index(doc_id)
                scale = 1.0 if name == "dense" else length / np.linalg.norm(vector)
                total = total + vector * scale / (1 / rank) ** eta
    return total / len(mine) if mine else 0.0


def expected(retriever, name, moved):
    """Scores of all live documents for a query that was moved."""
    found = {}
    for number in range(ALL - 1):
        vector = document_vector(retriever, name, f"d{number}")
        if name == "bm25":  # a document's own weights have no idf
            field = retriever.snapshot.field(name)
            row = field.document_row(int(retriever.snapshot.find([f"d{number}"])[0]))
            vector = np.zeros(len(field.vocabulary))
            vector[row.terms] = row.weights
        found[f"d{number}"] = float(vector @ moved)
    return found


def assert_scores(results, wanted, rel):
    assert {each.doc_id for each in results} <= set(wanted)
    top = max(map(abs, wanted.values()))
    for each in results:
        assert each.score == pytest.approx(wanted[each.doc_id], abs=rel * top)
    lowest = min(each.score for each in results)
    assert all(score <= lowest + 2 * rel * top for doc_id, score in wanted.items() if doc_id not in {r.doc_id for r in results})


@pytest.mark.parametrize("eta", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("name", FIELDS)
def test_logged_queries_are_moved_as_the_formula_has_it(name, eta, opened, log):
    events = [*impressions(QUERIES[:4]), *impressions(QUERIES[:4], seed=6, first_rank=11)]
    log.add(events)
    with opened(name) as retriever:
        for query in QUERIES[:4]:
            own = ready(retriever, name, query)
            f = f_of(retriever, name, query, events, eta, np.linalg.norm(own))
            wanted = expected(retriever, name, 0.3 * own + 0.9 * f)
            options = {"alpha": 0.3, "beta": 0.9, "eta": eta}
            found = retriever.search(query, 10, feedback=options)
            assert_scores(found, wanted, 1e-5 if name != "bm25" else 0.02)
            assert retriever.rank([query], 10, feedback=options)[0] == [(each.doc_id, each.score) for each in found]


@pytest.mark.parametrize("name", FIELDS)
def test_others_take_the_mean_of_the_three_nearest(name, opened, log):
    events = impressions(QUERIES, n=80)
    log.add(events)
    logged = list(dict.fromkeys(each.query for each in events))
    with opened(name) as retriever:
        for query in ("newt owl koi fox", "pig ant bee lynx mole"):
            assert query not in logged
            own = ready(retriever, name, query)
            rows = np.stack([ready(retriever, name, each) for each in logged])
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            centre = np.zeros_like(own) if name == "bm25" else rows.mean(axis=0)
            around, mine = rows - centre, own / np.linalg.norm(own) - centre
            cosines = around @ mine / (np.linalg.norm(around, axis=1) * np.linalg.norm(mine))
            nearest = np.argsort(-cosines, kind="stable")[:4]
            assert np.all(np.diff(cosines[nearest]) < -1e-3)  # no ties, which rounding would decide
            nearest = nearest[:3]
            least = float(np.mean(cosines[nearest[1:]]))  # the third is too far
            for low, kept in ((-1.0, nearest), (least, nearest[:2])):
                parts = [f_of(retriever, name, logged[i], events, 1.0, np.linalg.norm(own)) for i in kept]
                wanted = expected(retriever, name, 0.4 * own + 0.6 * np.sum(parts, axis=0) / 3)
                found = retriever.search(query, 10, feedback={"min_similarity": low})
                assert_scores(found, wanted, 1e-5 if name != "bm25" else 0.02)
            plain = retriever.search(query, 10)
            assert retriever.search(query, 10, feedback={"n_neighbours": 0}) == plain
            assert retriever.search(query, 10, feedback={"min_similarity": 1.0}) == plain


@pytest.mark.parametrize("name", FIELDS)
def test_without_clicks_nothing_moves(name, opened, log):
    with opened(name) as retriever:
        assert retriever.search("ant bee", feedback=True) == retriever.search("ant bee")
    log.add([Impression(query="ant bee", shown=["d1", "d2"]), Impression(query="cat dog", shown=["d1"])])
    log.add([Impression(query="eel fox", shown=["d59", "gone"], clicked=["d59", "gone"])])
    with opened(name) as retriever:
        for query in ("ant bee", "eel fox", "gnu hen"):
            plain, moved = (retriever.search(query, feedback=each, explain=True) for each in (False, True))
            assert moved == plain


def test_queries_that_were_asked_too_seldom_move_nothing(opened, log):
    log.add([Impression(query="ant bee", shown=["d1"], clicked=["d1"])] * 3)
    with opened("bm25") as retriever:
        plain = retriever.search("ant bee")
        assert retriever.search("ant bee", feedback={"min_times": 3}) != plain
        for query in ("ant bee", "bee ant"):
            assert retriever.search(query, feedback={"min_times": 4}) == retriever.search(query)


def test_clicks_that_users_of_low_ranks_missed_are_made_up_for():
    """With many biased users the weights are those of users who look at everything."""
    rng, n_users = np.random.default_rng(7), 200_000
    ranks = np.arange(1, 11)
    relevant = np.isin(ranks, [2, 5, 9])
    clicks = rng.binomial(n_users, relevant / ranks)
    assert (clicks * ranks**1.0 / n_users) == pytest.approx(relevant.astype(float), abs=0.03)


def test_the_heaviest_terms_of_clicked_documents_are_taken(opened, log):
    log.add([Impression(query="ant", shown=["d3"], clicked=["d3"])])
    with opened("bm25") as retriever:
        everything, few = (retriever.search("ant", feedback={"n_terms": n}, explain=True) for n in (64, 1))
        terms = {match.term for each in everything for match in each.explanation.stages[0].fields[0].terms}
        assert terms == set(TEXTS[3].split()) | {"ant"}
        assert len({match.term for each in few for match in each.explanation.stages[0].fields[0].terms}) <= 2


def test_explanations_say_what_moved_the_query(opened, log):
    log.add([Impression(query="ant bee", shown=["d1", "d2", "gone"], clicked=["d1", "gone"])] * 3)
    with opened("0.5*dense + 0.5*bm25") as retriever:
        measures = [
            field.measure
            for field in retriever.search("ant bee", 1, feedback=True, explain=True)[0].explanation.stages[0].fields
        ]
        assert measures == ["query moved by 3 clicks on it"] * 2
        near = retriever.search("bee ant", 1, search="bm25", feedback=True, explain=True)[0].explanation
        assert near.stages[0].fields[0].measure == "query moved by 3 clicks on 1 logged queries near it"
        assert not retriever.search("ant bee", 1, explain=True)[0].explanation.stages[0].fields[0].measure
        both = retriever.search("ant bee", 1, search="fde", feedback=True, explain=True)[0].explanation
        assert both.stages[0].fields[0].measure.endswith("an estimate of MaxSim; query moved by 3 clicks on it")


def test_token_fields_score_the_query_as_it_is(opened, log):
    log.add([Impression(query="ant bee", shown=["d1"], clicked=["d1"])])
    with opened("dense:60 > tokens") as retriever:
        plain, moved = retriever.search("ant bee", 5), retriever.search("ant bee", 5, feedback=True)
        assert [each.score for each in plain] == [each.score for each in moved]
        with pytest.raises(ValueError, match="feedback is for dense, fde and sparse fields; the search has tokens"):
            retriever.search("ant bee", search="tokens", feedback=True)


def test_a_retriever_logs_and_reads_what_others_log(opened, log):
    with opened("dense") as retriever:
        plain = retriever.search("ant bee", 1)[0].doc_id
        other = next(f"d{i}" for i in range(ALL) if f"d{i}" != plain)
        retriever.log_clicks([Impression(query="ant bee", shown=[other], clicked=[other])])
        assert retriever.search("ant bee", 1, feedback={"alpha": 0})[0].doc_id == other
        ClickLog(log.path).add([Impression(query="cat dog", shown=[other], clicked=[other])])
        assert retriever.search("cat dog", 5, feedback=True) == retriever.search("cat dog", 5)
        log.compact()
        assert not retriever.reload()
        assert retriever.search("cat dog", 1, feedback={"alpha": 0})[0].doc_id == other
        retriever.warm()
        again = copy.copy(Retriever.open(retriever.snapshot.path, search="bm25", clicks=log.path))
        assert again.search("cat dog", 1, feedback={"alpha": 0})[0].doc_id == other


def test_vectors_of_logged_queries_follow_the_index(tmp_path, log):
    log.add([Impression(query="ant bee", shown=["d1"], clicked=["d1"]), Impression(query="koi", shown=["d2"], clicked=["d2"])])
    build_index(
        documents=[{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS[:9])], out=tmp_path / "i", encoders=["bm25"]
    )
    with Retriever.open(tmp_path / "i", clicks=log) as retriever:
        retriever.search("ant bee cat", feedback=True)
        retriever.add([{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS) if i >= 9])
        moved = retriever.search("ant bee cat", feedback=True)
    with Retriever.open(tmp_path / "i", clicks=log) as retriever:
        assert retriever.search("ant bee cat", feedback=True) == moved


@pytest.mark.parametrize(
    ("feedback", "error", "message"),
    [
        (
            {"etta": 1},
            ValueError,
            "unknown option 'etta': there are alpha, beta, eta, n_neighbours, min_similarity, n_terms, min_times",
        ),
        ({"eta": -1}, ValueError, "eta is -1.0: it must be 0 to 4"),
        ({"alpha": "x"}, TypeError, "option alpha is 'x': it must be a number"),
        ({"n_neighbours": 0.5}, TypeError, "it must be a whole number"),
        ({"n_terms": 0}, ValueError, "n_terms is 0: it must be 1 to 10000"),
        (3, TypeError, "feedback must be a Rocchio or a mapping of option names, not int"),
    ],
)
def test_wrong_options_are_refused(feedback, error, message, opened):
    with opened("dense") as retriever:
        for call in (lambda: retriever.search("ant", feedback=feedback), lambda: retriever.search_fields(feedback=feedback)):
            with pytest.raises(error) as caught:
                call()
            assert message in str(caught.value)


def test_without_a_log_there_is_no_feedback(opened, tmp_path):
    with opened("dense", clicks=None) as retriever:
        assert retriever.clicks is None
        for call in (
            lambda: retriever.search("ant", feedback=True),
            lambda: retriever.search_fields(feedback=True),
            lambda: retriever.log_clicks([]),
        ):
            with pytest.raises(ValueError, match="there is no click log"):
                call()
    with pytest.raises(DatasetError, match="there is no click log here"):
        opened("dense", clicks=tmp_path / "no.log")


def test_gaussian_models_are_not_moved(opened):
    with opened("dense") as retriever:
        searcher = field_searcher(retriever.snapshot.field("dense"))
        assert is_movable(searcher)
        record = searcher.field.record
        object.__setattr__(record.encoder, "kind", "gaussian")
        assert not is_movable(searcher)
        object.__setattr__(record.encoder, "kind", "hashed-dense")


def test_a_log_of_one_query_has_no_neighbours_of_dense_queries():
    near = Neighbourhood.of(unit(DenseVectors(np.eye(1, 4, dtype=np.float32))))
    assert near.cosines(DenseVectors(np.eye(1, 4, dtype=np.float32))).tolist() == [0]


def test_only_so_many_logged_queries_are_neighbours(opened, log, monkeypatch):
    monkeypatch.setattr("lexmax.retrieval.feedback.moving.MAX_NEIGHBOURS", 5)
    log.add(impressions(QUERIES, n=60))
    feedback = Feedback(log)
    with opened("dense") as retriever:
        searchers = {"dense": field_searcher(retriever.snapshot.field("dense"))}
        encoded = []

        def encode(name, texts):
            encoded.extend(texts)
            return retriever.encode(texts, name)[name]

        feedback.prepare(searchers, encode)
        assert len(encoded) == 5
        feedback.prepare(searchers, encode)
        assert len(encoded) == 5
        log.add([Impression(query="new one", shown=["d1"])])
        feedback.refresh()
        feedback.prepare(searchers, encode)
        assert encoded[5:] == ["new one"]


def test_joined_rows_are_those_of_the_batches():
    batches = [DenseVectors(np.full((n, 3), n, np.float32)) for n in (1, 2)]
    assert joined(batches).vectors.tolist() == [[1.0] * 3, [2.0] * 3, [2.0] * 3]
    assert Rocchio().eta == 1.0
