import json
import threading

import pytest

from lexmax import Collection, EncoderMismatchError, RepresentationError, Retriever, build_index, import_vectors
from lexmax.index.documents import Document
from lexmax.retrieval.build import add_to_index
from lexmax.retrieval.encoders.lexical import LexicalEncoder

RECORDS = [
    {"_id": "a", "title": "Cats", "text": "cats purr and sleep", "metadata": {"year": 2001, "tags": ["pet"]}},
    {"_id": "b", "title": "Dogs", "text": "dogs bark at cats", "metadata": {"year": 2010}},
    {"_id": "c", "title": "", "text": "birds sing", "metadata": {"year": 2020}},
]


@pytest.fixture
def index(tmp_path):
    write(tmp_path / "c.jsonl", RECORDS)
    build_index([str(tmp_path / "c.jsonl")], tmp_path / "idx")
    return tmp_path / "idx"


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.mark.parametrize("searcher", ["blockmax", "exhaustive"])
def test_results_carry_the_documents(index, searcher):
    with Retriever.open(index, searcher=searcher, warm=True) as retriever:
        first, second = retriever.search("cats", k=5)
        assert (first.doc_id, first.title, first.text) == ("a", "Cats", "cats purr and sleep")
        assert first.metadata == {"year": 2001, "tags": ["pet"]}
        assert second.doc_id == "b"
        assert first.score > second.score > 0
        assert retriever.rank(["cats", "nothing"], 5) == [[("a", first.score), ("b", second.score)], []]
        assert retriever.search_batch(["cats", "bark"], 1)[1][0].doc_id == "b"
        assert [r.doc_id for r in retriever.search("cats", filter="year > 2005")] == ["b"]
        assert len(retriever) == 3
    with pytest.raises(ValueError, match="closed"):
        retriever.search("cats")


def test_explanations_sum_to_the_score(index):
    retriever = Retriever.open(index)
    for result in retriever.search("cats bark sleep cats", explain=True):
        assert result.explanation.score == pytest.approx(result.score, rel=1e-6)
        for match in result.explanation.terms:
            assert match.score == pytest.approx(match.query_weight * match.document_weight)
            assert not match.query_expanded
            assert not match.document_expanded
    assert {m.term for m in retriever.search("dogs bark", k=1, explain=True)[0].explanation.terms} == {
        "dog",
        "bark",
    }


def test_documents_by_id(index):
    retriever = Retriever.open(index)
    assert retriever.document("b") == Document(doc_id="b", title="Dogs", text="dogs bark at cats", metadata={"year": 2010})
    assert retriever.document("zz") is None


def test_reload_sees_commits_and_running_readers_do_not(index, tmp_path):
    retriever, other = Retriever.open(index), Retriever.open(index)
    add_to_index([write(tmp_path / "d.jsonl", [{"_id": "d", "text": "more cats"}])], index, LexicalEncoder())
    assert retriever.document("d") is None
    assert retriever.reload()
    assert not retriever.reload()
    assert retriever.document("d").text == "more cats"
    assert other.document("d") is None
    with Collection.open(index) as collection:
        collection.compact()
        collection.commit()
    assert [r.doc_id for r in other.search("cats")] == ["a", "b"]


def test_another_encoder_is_refused(index):
    with pytest.raises(EncoderMismatchError, match=r"bm25:\w+, but this encoder is bm25:\w+"):
        Retriever.open(index, encoder=LexicalEncoder(k1=0.5))
    with pytest.raises(EncoderMismatchError):
        add_to_index([], index, LexicalEncoder(k1=0.5))


def test_wrong_arguments(index):
    retriever = Retriever.open(index)
    with pytest.raises(ValueError, match="k must"):
        retriever.search("cats", k=0)
    with pytest.raises(ValueError, match="unknown field"):
        retriever.search("cats", filter="colour == 1")
    with pytest.raises(ValueError, match="searcher"):
        Retriever.open(index, searcher="magic")


def test_searches_during_commits_are_always_consistent(index, tmp_path):
    """Readers reload while a writer adds, deletes and compacts; every answer is one of a committed state."""
    retriever, failures, stop = Retriever.open(index), [], threading.Event()

    def read():
        while not stop.is_set():
            try:
                retriever.reload()
                results = retriever.search("cats", k=50)
                assert {"a", "b"} <= {r.doc_id for r in results}
                assert all("cats" in r.text for r in results)
            except Exception as failure:
                failures.append(failure)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    encoder = LexicalEncoder()
    for i in range(25):
        with Collection.open(index) as collection:
            text = f"more cats {i}"
            collection.add([Document(doc_id=f"x{i}", text=text)], encoder.encode_documents([text]))
            if i % 3 == 0:
                collection.delete([f"x{i - 2}"])
            if i % 5 == 0:
                collection.compact()
            collection.commit()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_index_of_vectors_is_warmed_and_searched_with_vectors_alone(tmp_path):
    write(tmp_path / "v.jsonl", [{"id": "a", "vector": {"x": 1.0, "y": 2.0}}, {"id": "b", "vector": {"y": 1.0}}])
    import_vectors([tmp_path / "v.jsonl"], tmp_path / "idx")
    with Retriever.open(tmp_path / "idx", warm=True) as retriever:
        answers = retriever.search_vectors([{"y": 1.0}, {"x": 3.0}])
        assert [[result.doc_id for result in results] for results in answers] == [["a", "b"], ["a"]]
        with pytest.raises(ValueError, match="2 queries with 1 texts"):
            retriever.search_vectors([{"y": 1.0}, {"x": 3.0}], ["one"])
        with pytest.raises(RepresentationError, match="no encoder"):
            retriever.search("text")
