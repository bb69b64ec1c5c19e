"""Arguments of wrong types and values: taken, or refused by an error that names the argument; nothing is made then."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from lexmax import (
    Collection,
    Document,
    EncoderSpec,
    FieldEncoder,
    NewField,
    Retriever,
    Snapshot,
    add_field,
    add_to_index,
    build_index,
    load_encoder,
)

BM25 = ["bm25"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "c.jsonl").write_text('{"_id": "a", "text": "cats purr"}\n{"_id": "b", "text": "dogs bark"}\n')
    build_index(folder / "c.jsonl", folder / "i", encoders=BM25)
    return folder


@pytest.fixture(scope="module")
def retriever(folder):
    with Retriever.open(folder / "i") as retriever:
        yield retriever


@pytest.mark.parametrize("form", [str, Path, lambda p: [p], lambda p: (str(p),), lambda p: iter([p])], ids=range(5))
def test_sources_are_paths_of_any_kind(folder, tmp_path, form):
    assert build_index(form(folder / "c.jsonl"), tmp_path / "i", encoders=BM25).n_added == 2


@pytest.mark.parametrize("encoder", ["bm25", load_encoder("bm25"), FieldEncoder(load_encoder("bm25"))], ids=range(3))
def test_encoders_of_a_mapping_are_of_any_kind(folder, tmp_path, encoder):
    build_index(documents=[{"id": "a", "text": "cats"}], out=tmp_path / "i", encoders={"words": encoder})
    assert Snapshot.open(tmp_path / "i").fields.keys() == {"words"}


WRONG_BUILDS = [
    ({"sources": [{"id": "a", "text": "x"}]}, TypeError, r"not dict: Python objects go to documents"),
    ({"sources": {"id": "a", "text": "x"}}, TypeError, r"not dict: Python objects go to documents"),
    ({"sources": 5}, TypeError, "sources are paths of files and folders, not int"),
    ({"sources": [5]}, TypeError, "sources are paths of files and folders, not int"),
    ({"sources": b"c.jsonl"}, TypeError, "not bytes"),
    ({"sources": []}, ValueError, "there are no sources"),
    ({}, TypeError, "sources .files. or documents"),
    ({"documents": {"id": "a", "text": "x"}}, TypeError, "put it in a list"),
    ({"documents": "text"}, TypeError, r"one text as \[text\]"),
    ({"documents": 5}, TypeError, "iterable of documents, not int"),
    ({"documents": ["a", None]}, TypeError, r"documents\[1\] is of type NoneType"),
    ({"documents": ["a"], "out": 5}, TypeError, "out is a path, a string or Path, not int"),
    ({"documents": ["a"], "encoders": "bm25"}, TypeError, r"write \['bm25'\]"),
    ({"documents": ["a"], "encoders": []}, ValueError, "at least one vector field"),
    ({"documents": ["a"], "encoders": [None]}, TypeError, "an encoder without a field name"),
    ({"documents": ["a"], "encoders": {"a": 5}}, TypeError, "the field 'a': an encoder is a string, .*, not int"),
    ({"documents": ["a"], "encoders": {1: "bm25"}}, ValueError, "a field is called by"),
    ({"documents": ["a"], "encoders": 5}, TypeError, "a sequence or a mapping, not int"),
    ({"documents": ["a"], "encoders": load_encoder("bm25")}, TypeError, "not LexicalEncoder: write {NAME: encoder}"),
    ({"documents": ["a"], "search": ""}, ValueError, "expected a field"),
    ({"documents": ["a"], "search": 5}, TypeError, "a search expression is a string, not int"),
    ({"documents": ["a"], "fields": {"text": "body"}}, TypeError, r"as in Fields\(text="),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG_BUILDS, ids=lambda value: str(value)[:40])
def test_wrong_builds_are_refused_before_anything_is_made(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        build_index(**{"out": tmp_path / "i", "encoders": BM25, **arguments})
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize(
    "wrong", [{"doc_id": 1}, {"text": None}, {"title": 3}, {"metadata": 5}, {"metadata": [("a", 1)]}], ids=str
)
def test_a_document_is_made_of_strings_and_a_mapping(wrong):
    with pytest.raises(TypeError, match=f"{next(iter(wrong))} {type(next(iter(wrong.values()))).__name__}"):
        Document(**{"doc_id": "a", "text": "x", **wrong})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": None}, TypeError, "path is a path, a string or Path, not NoneType"),
        ({"search": 5}, TypeError, "a search expression is a string, not int"),
        ({"search": ""}, ValueError, "expected a field"),
        ({"options": 5}, TypeError, "options is a mapping, as in .*, not int"),
        ({"options": {"bm25": 5}}, TypeError, "a mapping of option names, not int"),
        ({"options": {"bm52": {}}}, ValueError, "options for the field 'bm52'; the fields are bm25; did you mean 'bm25'"),
        ({"models": "x"}, TypeError, "models is a mapping"),
        ({"models": {"bm25": "x"}}, ValueError, "bm25 takes no model"),
        ({"encoders": BM25}, TypeError, "encoders is a mapping, as in {FIELD: encoder}, not list"),
        ({"encoders": {"bm25": "bm25"}}, TypeError, "an encoder is expected, not str"),
    ],
    ids=str,
)
def test_wrong_openings_are_refused(folder, arguments, error, message):
    with pytest.raises(error, match=message):
        Retriever.open(**{"path": folder / "i", **arguments})


def test_a_retriever_is_made_by_open(folder):
    with pytest.raises(TypeError, match=r"use Retriever\.open"):
        Retriever(folder / "i")


@pytest.mark.parametrize("query", [None, 5, b"cats", ["cats"], {"text": "cats"}, float("nan")], ids=repr)
def test_a_query_is_a_string(retriever, query):
    with pytest.raises(TypeError, match=f"a query is a string, not {type(query).__name__}"):
        retriever.search(query)


@pytest.mark.parametrize("k", [None, 1.5, "3", True, float("nan"), [1]], ids=repr)
def test_k_is_a_whole_number(retriever, k):
    for search in (retriever.search, lambda q, k: retriever.search_batch([q], k), lambda q, k: retriever.rank([q], k)):
        with pytest.raises(TypeError, match=f"k is a whole number, not {type(k).__name__}"):
            search("cats", k)
    assert retriever.search("cats", np.int64(3))[0].doc_id == "a"
    assert retriever.search("cats", 2**70)[0].doc_id == "a"
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        retriever.search("cats", 0)


@pytest.mark.parametrize("texts", [None, "cats", b"cats", 5, [None], ["cats", 5], {"a": "cats"}], ids=repr)
def test_texts_are_a_sequence_of_strings(retriever, texts):
    encoder = load_encoder("bm25")
    calls = (retriever.search_batch, retriever.rank, retriever.encode, encoder.encode_documents, encoder.encode_queries)
    for call in (*calls, retriever.documents, retriever.delete, retriever.snapshot.find):
        with pytest.raises(TypeError, match="are a sequence of strings"):
            call(texts)


@pytest.mark.parametrize("form", [list, tuple, iter, np.array], ids=lambda form: form.__name__)
def test_texts_are_any_iterable(retriever, form):
    assert [results[0].doc_id for results in retriever.search_batch(form(["cats", "dogs"]))] == ["a", "b"]
    assert retriever.rank(form(["dogs"]))[0][0][0] == "b"
    assert len(load_encoder("bm25").encode_documents(form(["cats", "dogs"]))) == 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.search("cats", search=5), TypeError, "a search expression is a string"),
        (lambda r: r.search("cats", options=5), TypeError, "options is a mapping"),
        (lambda r: r.search("cats", options={"bm25": {1: 2}}), ValueError, "unknown option 1"),
        (lambda r: r.search("cats", filter=5), ValueError, "filter: an expression or a tree"),
        (lambda r: r.search_batch(["cats"], n_threads="x"), TypeError, "n_threads is a whole number"),
        (lambda r: r.search_batch(["cats"], n_threads=0), ValueError, "n_threads must be at least 1"),
        (lambda r: r.search_vectors("cats"), TypeError, "no sparse vectors can be made of str"),
        (lambda r: r.search_vectors([{"cat": 1.0}], "c"), TypeError, "texts are a sequence of strings"),
        (lambda r: r.document(None), TypeError, "doc_ids are a sequence of strings"),
        (lambda r: r.encoders(["splade"]), ValueError, "there is no field 'splade'"),
        (lambda r: r.encoders("bm25"), TypeError, "names are a sequence of strings"),
        (lambda r: r.add({"id": "x", "text": "y"}), TypeError, "put it in a list"),
        (lambda r: r.add([5]), TypeError, r"documents\[0\] is of type int"),
        (lambda r: r.snapshot.get_many([10**6]), IndexError, "there is no doc_num 1000000"),
        (lambda r: r.snapshot.get_many([-1]), IndexError, "there is no doc_num -1"),
    ],
)
def test_wrong_calls_are_refused(retriever, call, error, message):
    from lexmax import LexmaxError

    with pytest.raises((error, LexmaxError), match=message):
        call(retriever)


def test_a_collection_refuses_wrong_arguments_and_goes_on(folder, tmp_path):
    encoder = load_encoder("bm25")
    record = Snapshot.open(folder / "i").manifest.fields["bm25"].encoder
    new = NewField(encoder=record, options={"bm25": {"k1": 1.2, "b": 0.75}})
    for fields in (None, {}):
        with pytest.raises(ValueError, match="at least one vector field"):
            Collection.create(tmp_path / "c", fields)
    with pytest.raises(TypeError, match="fields is a mapping"):
        Collection.create(tmp_path / "c", BM25)
    with pytest.raises(TypeError, match="a field is created from a NewField, not str"):
        Collection.create(tmp_path / "c", {"a": "bm25"})
    with pytest.raises(TypeError, match="path is a path"):
        Collection.create(None, {"bm25": new})
    assert not (tmp_path / "c").exists()
    for open_ in (Collection.open, Snapshot.open):
        with pytest.raises(TypeError, match="path is a path"):
            open_(None)
    with Collection.create(tmp_path / "c", {"bm25": new}) as collection:
        with pytest.raises(TypeError, match="a Document is expected, not str"):
            collection.add(["x"], {"bm25": encoder.encode_documents(["x"])})
        for doc_ids in ("a", None, [5]):
            with pytest.raises(TypeError, match="doc_ids are a sequence of strings"):
                collection.delete(doc_ids)
        with pytest.raises(TypeError, match="NewField, not NoneType"):
            collection.add_field("other", None)
        collection.add([Document(doc_id="a", text="x")], {"bm25": encoder.encode_documents(["x"])})
        collection.commit()
    assert Snapshot.open(tmp_path / "c").n_docs == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: load_encoder(5), ValueError, "unknown encoder 5"),
        (lambda f: load_encoder("splad"), ValueError, "did you mean 'splade'"),
        (lambda f: load_encoder(model=5), TypeError, "model is a path"),
        (lambda f: load_encoder(model=f / "nothing"), Exception, "no model folder at"),
        (lambda f: load_encoder("bm25", kk=1), TypeError, "bm25 has no setting 'kk'"),
        (lambda f: add_field(f / "i", 5), TypeError, "an encoder is typed as a string, not as int"),
        (lambda f: add_field(None, EncoderSpec(name="x", kind="bm25")), TypeError, "path is a path"),
        (lambda f: add_to_index([5], f / "i"), TypeError, "sources are paths"),
        (lambda f: add_to_index(documents=["x"], path=5), TypeError, "path is a path"),
    ],
)
def test_wrong_calls_of_functions_are_refused(folder, call, error, message):
    with pytest.raises(error, match=message):
        call(folder)


def test_copies_open_the_index_again(folder):
    with Retriever.open(folder / "i", search="bm25:1", options={"bm25": {"alpha": 0.9}}) as retriever:
        for other in (copy.copy(retriever), copy.deepcopy(retriever), pickle.loads(pickle.dumps(retriever))):  # noqa: S301
            with other:
                assert other is not retriever
                assert [r.doc_id for r in other.search("cats dogs")] == [r.doc_id for r in retriever.search("cats dogs")]
                assert (other.default_search, len(other)) == ("bm25:1", 2)
    with pytest.raises(ValueError, match="closed"):
        pickle.dumps(retriever)


def test_a_temporary_index_is_not_copied():
    with Retriever.from_texts(["cats"], encoders=BM25) as retriever:
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="temporary index cannot be pickled or copied: open it from its path"):
                copied(retriever)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader_search(folder, start):
    data = pytest.importorskip("torch.utils.data")
    with Retriever.open(folder / "i") as retriever:
        retriever.search("cats")  # threads and kernels are in use before the fork
        loader = data.DataLoader(["cats", "dogs"], collate_fn=retriever.rank, num_workers=1, multiprocessing_context=start)
        assert [ranking[0][0] for (ranking,) in loader] == ["a", "b"]
