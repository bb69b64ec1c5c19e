"""Query banks: the dynamic inverted softmax against its formula in float64, and what becomes of a bank in an index."""

import json

import numpy as np
import pytest
from dense_vectors import DENSE_ENCODER, dense_vectors, new_dense_field
from hashed_tokens import HashedTexts, HashedTokens, add_method

from lexmax import Retriever, build_index
from lexmax.__main__ import main
from lexmax.index.check import check_index
from lexmax.index.collection import Collection
from lexmax.index.documents import Document
from lexmax.index.errors import IndexFormatError, RepresentationError
from lexmax.index.manifest import read
from lexmax.index.query_bank import read_bank
from lexmax.index.representations.dense import DenseVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.fields import add_field, set_query_bank
from lexmax.retrieval.searchers.dense import DenseOptions, DenseSearcher
from lexmax.retrieval.searchers.registry import field_searcher, make_options

N, DIM, N_BANK = 300, 16, 40
WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay", "koi", "lynx"]


class Encoder:
    """Stands for the encoder of `made`, which is not asked for anything."""

    kind, representation, fingerprint, settings = "dense", "dense", DENSE_ENCODER.fingerprint, {}

    def encode_documents(self, texts):
        return DenseVectors(np.ones((len(texts), 8), np.float32))


def made(path, *, bank=None, structure="flat", n=N, keep="float32"):
    rng = np.random.default_rng(3)
    vectors = dense_vectors(rng, n, DIM)
    with Collection.create(path, {"dense": new_dense_field(DIM, structure=structure, keep=keep)}) as collection:
        for first in range(0, n, n // 2):
            rows = np.arange(first, first + n // 2)
            collection.add([Document(doc_id=f"d{i}", text="") for i in rows], {"dense": vectors.select(rows)})
            collection.commit()
        collection.delete(["d5", "d200"])
        if bank is not None:
            collection.set_query_bank("dense", bank)
        collection.commit()
    return vectors.vectors


@pytest.fixture(scope="module")
def bank():
    return dense_vectors(np.random.default_rng(4), N_BANK, DIM)


@pytest.fixture(scope="module")
def index(tmp_path_factory, bank):
    path = tmp_path_factory.mktemp("index") / "i"
    return path, made(path, bank=bank)


def oracle(documents, queries, bank, beta, k, live):
    """Scores (n_queries, n) by the paper's quotient, and which queries it is applied to."""
    longest = np.nextafter(np.float32(np.linalg.norm(documents, axis=1).max()), np.float32(np.inf)).astype(np.float64)
    d, q, b = (each.astype(np.float64) for each in (documents, queries, bank))
    products = q @ d.T
    products[:, ~live] = -np.inf
    unit_q, unit_b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (q, b))
    of_queries, of_bank = np.exp(beta * unit_q @ d.T / longest), np.exp(beta * unit_b @ d.T / longest)
    quotients = of_queries / of_bank.sum(axis=0)
    in_bank = b @ d.T
    in_bank[:, ~live] = -np.inf
    activation = {int(doc) for row in in_bank for doc in np.argsort(-row, kind="stable")[:k]}
    active = np.array([int(np.argmax(row)) in activation for row in products])
    return products, quotients, active, longest


@pytest.mark.parametrize("algorithm", ["auto", "exhaustive"])
@pytest.mark.parametrize(("beta", "k"), [(20.0, 1), (5.0, 3), (200.0, 40)])
def test_scores_are_those_of_the_formula(beta, k, algorithm, index, bank):
    path, documents = index
    searcher = DenseSearcher(Snapshot.open(path).field("dense"))
    queries = dense_vectors(np.random.default_rng(8), 30, DIM)
    live = ~np.isin(np.arange(N), [5, 200])
    products, quotients, active, longest = oracle(documents, queries.vectors, bank.vectors, beta, k, live)
    assert active.any()
    assert active.sum() < 30 or k > 3
    options = DenseOptions(bank_beta=beta, bank_k=k, algorithm=algorithm)
    hits = searcher.search(queries, 10, options=options)
    plain = searcher.search(queries, 10)
    for number in range(30):
        doc_nums, scores = hits.query(number)
        if not active[number]:
            assert doc_nums.tolist() == plain.query(number)[0].tolist()
            assert scores.tolist() == plain.query(number)[1].tolist()
            continue
        unit = np.linalg.norm(queries.vectors[number].astype(np.float64)) * longest
        wanted = unit / beta * np.log(quotients[number] * N_BANK)
        candidates = np.flatnonzero(live) if algorithm == "exhaustive" else np.argsort(-products[number], kind="stable")[:100]
        order = candidates[np.argsort(-wanted[candidates], kind="stable")][:10]
        assert doc_nums.tolist() == order.tolist()
        assert scores == pytest.approx(wanted[order], abs=2e-5)
    scored = searcher.score(queries, [hits.query(i)[0] for i in range(30)], options=options)
    assert [each.tolist() for each in scored] == [hits.query(i)[1].tolist() for i in range(30)]


def test_filters_do_not_decide_whether_a_query_is_active(index):
    path, _ = index
    searcher = DenseSearcher(Snapshot.open(path).field("dense"))
    queries = dense_vectors(np.random.default_rng(8), 30, DIM)
    options = DenseOptions(bank_beta=20.0)
    whole = searcher.search(queries, 10, options=options)
    masks = [np.ones(N // 2, np.bool_), np.zeros(N // 2, np.bool_)]
    filtered = searcher.search(queries, 10, options=options, allowed=masks)
    for number in range(30):
        known = dict(zip(*(each.tolist() for each in whole.query(number)), strict=True))
        for doc_num, score in zip(*(each.tolist() for each in filtered.query(number)), strict=True):
            assert known.get(doc_num, score) == score


def test_a_document_that_answers_everything_gives_way(tmp_path):
    """A hub, near to all queries of the bank, stands before the document that a query means."""
    directions = np.eye(8, dtype=np.float32)
    hub = np.full(8, 8**-0.5, np.float32)
    near = 0.3 * directions[:, [1, 2, 3, 4, 5, 6, 7, 0]] + 0.33 * directions
    documents = np.concatenate([hub[None], near / np.linalg.norm(near, axis=1, keepdims=True)])
    noise = 0.3 * directions + 0.7 * hub
    bank = DenseVectors((noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32))
    with Collection.create(tmp_path / "i", {"dense": new_dense_field(8, keep="float32")}) as collection:
        names = ["hub", *(f"d{i}" for i in range(8))]
        collection.add(
            [Document(doc_id=name, text="") for name in names], {"dense": DenseVectors(documents.astype(np.float32))}
        )
        collection.set_query_bank("dense", bank)
        collection.commit()
    with Retriever.open(tmp_path / "i", encoders={"dense": Encoder()}) as retriever:
        query = DenseVectors(0.52 * directions[:1] + 0.5 * hub[None])
        assert retriever.search_vectors(query, k=1)[0][0].doc_id == "hub"
        options = {"dense": {"bank_beta": 20}}
        (found,) = retriever.search_vectors(query, k=2, options=options, explain=True)
        assert found[0].doc_id != "hub"
        field = found[0].explanation.stages[0].fields[0]
        assert field.measure == "normalised by the query bank, beta 20, where that is active"
        raw = {each.doc_id: each.score for each in retriever.search_vectors(query, k=9)[0]}
        assert field.contribution == found[0].score != field.score == raw[found[0].doc_id]
        plain = retriever.search_vectors(query, k=1, explain=True)[0][0].explanation.stages[0].fields[0]
        assert plain.measure == ""


@pytest.mark.parametrize("structure", ["flat", "ivf", "hnsw"])
def test_every_structure_takes_a_bank_and_scores_as_it_searches(structure, tmp_path, bank):
    made(tmp_path / "i", bank=bank, structure=structure, n=4000)
    searcher = DenseSearcher(Snapshot.open(tmp_path / "i").field("dense"))
    queries = dense_vectors(np.random.default_rng(8), 20, DIM)
    options = DenseOptions(bank_beta=20.0, bank_k=5)
    hits = searcher.search(queries, 5, options=options, n_threads=2)
    scored = searcher.score(queries, [hits.query(i)[0] for i in range(20)], options=options)
    assert [each.tolist() for each in scored] == [hits.query(i)[1].tolist() for i in range(20)]
    assert hits.scores.tolist() != searcher.search(queries, 5).scores.tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bank_beta": 0}, "bank_beta is 0.0: it must be above 0"),
        ({"bank_beta": 1e5}, "it must be above 0, up to 10000"),
        ({"bank_k": 2}, "bank_k must be at least 1, and goes with bank_beta"),
        ({"bank_beta": 1, "bank_k": 0}, "bank_k must be at least 1"),
        ({"algorithm": "exhaustive", "n_candidates": 5}, "leave out n_candidates"),
    ],
)
def test_wrong_options_are_refused(given, message, index):
    with pytest.raises(ValueError, match=message):
        make_options(field_searcher(Snapshot.open(index[0]).field("dense")), given)


def test_options_that_a_field_does_not_have_are_known_before_a_search(tmp_path, index):
    made(tmp_path / "i")
    with Retriever.open(tmp_path / "i", encoders={"dense": Encoder()}) as retriever:
        for options in ({"bank_beta": 20}, {"ef_search": 5}):
            with pytest.raises(ValueError, match=r"there is no query bank|is for structure=hnsw"):
                retriever.search_fields(options={"dense": options})


def test_a_bank_stays_with_its_field(tmp_path, bank):
    path = tmp_path / "i"
    made(path, bank=bank)
    file = read(path).fields["dense"].state["bank"]
    assert read_bank(path, read(path).fields["dense"]).vectors.tolist() == bank.vectors.tolist()
    assert Snapshot.open(path).field("dense").info()["query_bank"] == N_BANK
    with Collection.open(path) as collection:
        collection.add([Document(doc_id="new", text="")], {"dense": dense_vectors(np.random.default_rng(1), 1, DIM)})
        collection.commit()
        collection.compact()
        collection.commit()
        assert collection.manifest.fields["dense"].state["bank"] == file
        collection.set_query_bank("dense", bank.select(np.arange(3)))
        collection.close()
    assert check_index(path) == []
    assert [each.name for each in path.glob("bank-*")] == [file]
    with Collection.open(path) as collection:
        collection.set_query_bank("dense", bank.select(np.arange(3)))
        collection.commit()
    assert len(read_bank(path, read(path).fields["dense"])) == 3
    assert [each.name for each in path.glob("bank-*")] != [file]
    with Collection.open(path) as collection:
        collection.set_query_bank("dense", None)
        collection.commit()
    assert not list(path.glob("bank-*"))
    assert Snapshot.open(path).field("dense").info()["query_bank"] is None


def test_damaged_and_foreign_banks_are_refused(tmp_path, bank):
    path = tmp_path / "i"
    made(path, bank=bank)
    file = path / read(path).fields["dense"].state["bank"]
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert any(file.name in problem for problem in check_index(path))
    with pytest.raises(IndexFormatError, match="CRC-32"):
        DenseSearcher(Snapshot.open(path).field("dense")).search(bank, 1, options=DenseOptions(bank_beta=20.0))
    made(tmp_path / "other", bank=bank)
    file.write_bytes((tmp_path / "other" / read(tmp_path / "other").fields["dense"].state["bank"]).read_bytes())
    with pytest.raises(IndexFormatError, match="exchanged"):
        Snapshot.open(path)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (DenseVectors(np.ones((2, 3), np.float32)), RepresentationError, "of dim 16, not DenseVectors of dim 3"),
        ("text", RepresentationError, "not str of dim unknown"),
        (DenseVectors(np.empty((0, DIM), np.float32)), ValueError, "a query bank of 0 queries"),
        (DenseVectors(np.ones((20_001, DIM), np.float32)), ValueError, "of 20,001 queries: it must have 1 to 20,000"),
    ],
)  # fmt: skip
def test_wrong_banks_are_refused(given, error, message, index):
    with Collection.open(index[0]) as collection, pytest.raises(error, match=message):
        collection.set_query_bank("dense", given)


@pytest.fixture
def texts(tmp_path):
    add_method()
    rows = [" ".join(np.random.default_rng(i).choice(WORDS, 5)) for i in range(60)]
    encoders = {
        "tokens": HashedTokens(),
        "fde": "muvera,of=tokens,n_cells=4,n_samples=200",
        "dense": HashedTexts(),
        "bm25": "bm25",
    }
    build_index(documents=[{"id": f"d{i}", "text": row} for i, row in enumerate(rows)], out=tmp_path / "i", encoders=encoders)
    return tmp_path / "i"


GIVEN = {"tokens": HashedTokens(), "fde": HashedTokens(), "dense": HashedTexts()}


@pytest.mark.parametrize("name", ["dense", "fde"])
def test_fields_of_dense_vectors_and_of_encodings_have_banks(name, texts):
    queries = [" ".join(np.random.default_rng(500 + i).choice(WORDS, 3)) for i in range(30)]
    told = []
    assert set_query_bank(texts, name, queries, encoder=GIVEN[name], progress=told.append) == 30
    assert told == [30]
    with Retriever.open(texts, search=name, encoders=GIVEN) as retriever:
        asked = [" ".join(np.random.default_rng(700 + i).choice(WORDS, 3)) for i in range(20)]
        plain = retriever.search_batch(asked, 10)
        found = retriever.search_batch(asked, 10, options={name: {"bank_beta": 20}})
        assert plain != found
        assert any(a == b for a, b in zip(plain, found, strict=True))  # not active
        retriever.add([{"id": "more", "text": "ant bee"}])
        assert retriever.search(asked[0], options={name: {"bank_beta": 20}})
    assert check_index(texts) == []


def test_other_fields_have_none(texts):
    for name, message in (("bm25", "this one is sparse"), ("tokens", "this one is tokens")):
        with pytest.raises(RepresentationError, match=message):
            set_query_bank(texts, name, ["ant"], encoder=GIVEN.get(name))
    with pytest.raises(RepresentationError, match="no field 'x'"):
        set_query_bank(texts, "x", ["ant"])
    with pytest.raises(ValueError, match="there is no field 'x'"):
        set_query_bank(texts, "x", None)
    with pytest.raises(ValueError, match="a query bank of 0 queries"):
        set_query_bank(texts, "dense", [], encoder=HashedTexts())


def test_a_new_field_of_an_old_name_has_no_bank(texts):
    set_query_bank(texts, "fde", ["ant"], encoder=HashedTokens())
    with Collection.open(texts) as collection:
        collection.drop_field("fde")
        collection.commit()
    add_field(texts, "fde=muvera,of=tokens,n_cells=4,n_samples=200")
    assert "bank" not in read(texts).fields["fde"].state
    assert not list(texts.glob("bank-*"))


def test_the_command_line(texts, tmp_path, capsys):
    queries = tmp_path / "q.txt"
    queries.write_text("ant bee\ncat dog\n")
    path = str(texts)
    assert main(["field", "bank", path, "dense", "--queries", str(queries)]) == 0
    assert "the field dense has a query bank of 2 queries" in capsys.readouterr().err
    assert main(["info", path]) == 0
    assert "query_bank" in capsys.readouterr().out
    assert main(["search", path, "ant bee", "--search", "dense", "--option", "dense.bank_beta=20", "--json", "--explain"]) == 0
    assert (
        "normalised by the query bank"
        in json.loads(capsys.readouterr().out.splitlines()[0])["explanation"]["stages"][0]["fields"][0]["measure"]
    )
    assert main(["field", "drop-bank", path, "dense"]) == 0
    assert "the field dense has no query bank" in capsys.readouterr().err
    for arguments, message in (
        (
            ["search", path, "ant", "--search", "dense", "--option", "dense.bank_beta=20"],
            "there is no query bank: `lexmax field bank",
        ),
        (["field", "bank", path, "dense"], "write `lexmax field bank IDX NAME --queries FILE`"),
        (["field", "bank", path, "--queries", str(queries)], "write `lexmax field bank IDX NAME --queries FILE`"),
        (["field", "drop-bank", path, "dense", "--queries", str(queries)], "write `lexmax field bank"),
        (["field", "bank", path, "bm25", "--queries", str(queries)], "query banks are for dense and fde fields"),
        (["field", "bank", path, "nope", "--queries", str(queries)], "there is no field 'nope'"),
        (["field", "drop", path, "dense", "--queries", str(queries)], "--queries and --model are for `lexmax field bank`"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
