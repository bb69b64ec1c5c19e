"""Lists of words to an index: the one that their texts would give, and what is refused."""

import pytest

from lexmax import DuplicateDocumentError, Retriever, build_index, import_tokens
from lexmax.index.collection import Collection
from lexmax.index.manifest import read as read_manifest

LISTS = [["Cats", "purr", "COVID-19"], [], ["the", "dogs", "bark", "at", "cats"], ["école", "cats", "cats"]]


def rows(path):
    with Retriever.open(path) as retriever:
        part = retriever.snapshot.fields["bm25"].segments[0].inverted.rows()
    return [part.indptr.tolist(), part.terms.tolist(), part.impacts.tolist(), part.counts.tolist(), part.lengths.tolist()]


def test_the_index_is_the_one_of_the_texts(tmp_path, monkeypatch):
    monkeypatch.setattr("lexmax.retrieval.exchange.token_lists.BATCH_DOCUMENTS", 3)
    done = []
    report = import_tokens(iter(LISTS), tmp_path / "lists", encoder="bm25,k1=0.9", progress=done.append)
    build_index(documents=[" ".join(words) for words in LISTS], out=tmp_path / "texts", encoders=["bm25,k1=0.9"])
    assert (report.n_added, done) == (4, [3, 4])
    assert rows(tmp_path / "lists") == rows(tmp_path / "texts")
    fields = [read_manifest(tmp_path / name).fields["bm25"].encoder for name in ("lists", "texts")]
    assert fields[0] == fields[1]
    with Retriever.open(tmp_path / "lists") as retriever:
        assert [hit.doc_id for hit in retriever.search("a cat at school, école")] == ["3", "2", "0"]
        assert retriever.search("bark")[0].text == ""


def test_ids_and_the_name_of_the_field(tmp_path):
    import_tokens(LISTS, tmp_path / "idx", doc_ids=["a", "b", "c", "d"], encoder="words=bm25,stemmer=none")
    with Retriever.open(tmp_path / "idx") as retriever:
        assert retriever.fields == ("words",)
        assert [hit.doc_id for hit in retriever.search("bark")] == ["c"]
        retriever.add([{"id": "e", "text": "barking dogs"}])
    with Collection.open(tmp_path / "idx") as collection:
        assert sum(segment.n_docs for segment in collection.manifest.segments) == 5


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"doc_ids": ["a"]}, ValueError, "fewer doc_ids"),
        ({"doc_ids": list("abcde")}, ValueError, "more doc_ids"),
        ({"doc_ids": list("abca")}, DuplicateDocumentError, "a"),
        ({"doc_ids": "abcd"}, TypeError, "doc_ids"),
        ({"encoder": "lexmax-splade"}, ValueError, "BM25"),
        ({"encoder": "bm25,nbits=2"}, ValueError, "nbits"),
        ({"token_lists": ["cats purr"]}, TypeError, "lists of words"),
    ],
)
def test_nothing_is_made_of_what_is_refused(tmp_path, changes, error, message):
    arguments = {"token_lists": LISTS, "out": tmp_path / "idx", **changes}
    with pytest.raises(error, match=message):
        import_tokens(**arguments)
    assert not (tmp_path / "idx" / "manifest.json").exists()
