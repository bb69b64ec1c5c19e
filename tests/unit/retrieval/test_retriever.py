import asyncio
import copy
import inspect
import json
import pickle
import threading
import typing

import pytest

import lexmax
from lexmax import (
    Collection,
    Document,
    EncoderMismatchError,
    ExpressionError,
    RepresentationError,
    Retriever,
    add_to_index,
    build_index,
    import_vectors,
)
from lexmax.retrieval.encoders.lexical import LexicalEncoder

RECORDS = [
    {"_id": "a", "title": "Cats", "text": "cats purr and sleep", "metadata": {"year": 2001, "tags": ["pet"]}},
    {"_id": "b", "title": "Dogs", "text": "dogs bark at cats", "metadata": {"year": 2010}},
    {"_id": "c", "title": "", "text": "birds sing", "metadata": {"year": 2020}},
]


@pytest.fixture
def index(tmp_path):
    write(tmp_path / "c.jsonl", RECORDS)
    build_index(tmp_path / "c.jsonl", tmp_path / "idx", encoders=["bm25", "flat=bm25,b=0"], search="bm25")
    return tmp_path / "idx"


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.mark.parametrize("exhaustive", [False, True])
def test_results_carry_the_documents(index, exhaustive):
    with Retriever.open(index, exhaustive=exhaustive, warm=True) as retriever:
        first, second = retriever.search("cats", k=5)
        assert (first.doc_id, first.title, first.text) == ("a", "Cats", "cats purr and sleep")
        assert first.metadata == {"year": 2001, "tags": ["pet"]}
        assert second.doc_id == "b"
        assert first.score > second.score > 0
        assert retriever.rank(["cats", "nothing"], 5) == [[("a", first.score), ("b", second.score)], []]
        assert retriever.search_batch(["cats", "bark"], 1)[1][0].doc_id == "b"
        assert [r.doc_id for r in retriever.search("cats", filter="year > 2005")] == ["b"]
        assert [r.doc_id for r in retriever.search("cats", filter={"year": {">": 2005}})] == ["b"]
        assert len(retriever) == 3
        assert retriever.fields == ("bm25", "flat")
    with pytest.raises(ValueError, match="closed"):
        retriever.search("cats")


def test_expressions_of_the_index_the_retriever_and_the_query(index):
    with Retriever.open(index) as retriever:
        assert retriever.default_search == "bm25"
        plain = retriever.search("cats bark")
        assert [r.score for r in retriever.search("cats bark", search="flat")] != [r.score for r in plain]
        fused = retriever.search("cats bark", search="bm25 + flat")
        assert fused[0].score == pytest.approx(2 / 61)
    with Retriever.open(index, search="flat > bm25") as retriever:
        assert retriever.default_search == "flat > bm25"
        assert [(r.doc_id, r.score) for r in retriever.search("cats bark")] == [(r.doc_id, r.score) for r in plain]
        with pytest.raises(ExpressionError):
            retriever.search("cats", search="bm25 +")
        with pytest.raises(RepresentationError, match="no field 'splade'; there are bm25, flat"):
            retriever.search("cats", search="splade")
    with pytest.raises(RepresentationError, match="no field 'splade'"):
        Retriever.open(index, search="splade")


def test_explanations_sum_to_the_score_stage_by_stage(index):
    retriever = Retriever.open(index)
    for result in retriever.search("cats bark sleep cats", explain=True):
        (stage,) = result.explanation.stages
        (field,) = stage.fields
        assert result.explanation.score == stage.score == result.score
        assert sum(match.score for match in field.terms) == pytest.approx(result.score, rel=1e-6)
        for match in field.terms:
            assert match.score == pytest.approx(match.query_weight * match.document_weight)
            assert not match.query_expanded
            assert not match.document_expanded
    best = retriever.search("dogs bark", k=1, search="(bm25 + flat) > 0.5*bm25 + 0.5*flat", explain=True)[0]
    fused, reranked = best.explanation.stages
    assert (fused.stage, reranked.stage) == ("bm25 + flat", "> 0.5*bm25 + 0.5*flat")
    assert (fused.rank, reranked.rank) == (1, 1)
    assert {match.term for match in fused.fields[0].terms} == {"dog", "bark"}
    for stage in (fused, reranked):
        assert [field.field for field in stage.fields] == ["bm25", "flat"]
        assert sum(field.contribution for field in stage.fields) == pytest.approx(stage.score)
    assert reranked.score == best.score


def test_a_checkpoint_ends_explanations(index):
    called = []

    def checkpoint():
        called.append(1)
        if len(called) == 2:
            raise TimeoutError

    with Retriever.open(index) as retriever:
        texts = ["cats bark sleep"]
        assert len(retriever.search(texts[0])) >= 2
        with pytest.raises(TimeoutError):
            retriever.search_vectors(retriever.encode(texts), texts, explain=True, checkpoint=checkpoint)
        retriever.search_vectors(retriever.encode(texts), texts, checkpoint=checkpoint)
    assert len(called) == 2, "without explanations there is nothing to end"


def test_timings_on_request(index):
    with Retriever.open(index, search="bm25 > flat") as retriever:
        assert retriever.search("cats").timings_ms == {}
        timings = retriever.search("cats", timings=True).timings_ms
        assert next(iter(timings)) == "encode"
        assert {"bm25:100", "> flat"} <= set(timings)


def test_options_of_a_field(index):
    with Retriever.open(index, options={"bm25": {"algorithm": "scan"}}) as retriever:
        expected = retriever.rank(["cats bark"], 3)
        assert retriever.rank(["cats bark"], 3, options={"bm25": {"algorithm": "exhaustive"}}) == expected
        assert retriever.rank(["cats bark"], 3, options={"bm25": lexmax.SparseOptions(alpha=0.9)})
        for options, name in [({"bm25": {"n_probe": 3}}, "n_probe"), ({"flat": {}}, "flat"), ({"bm25": {"alpha": 2}}, "alpha")]:
            with pytest.raises((ValueError, TypeError), match=name):
                retriever.search("cats", options=options)
    with pytest.raises((ValueError, TypeError), match="algorithm"):
        Retriever.open(index, options={"bm25": {"algorithm": "magic"}})


def test_documents_by_id(index):
    retriever = Retriever.open(index)
    assert retriever.document("b") == Document(doc_id="b", title="Dogs", text="dogs bark at cats", metadata={"year": 2010})
    assert [d and d.doc_id for d in retriever.documents(["c", "zz", "a"])] == ["c", None, "a"]


def test_reload_sees_commits_and_running_readers_do_not(index, tmp_path):
    retriever, other = Retriever.open(index), Retriever.open(index)
    add_to_index([write(tmp_path / "d.jsonl", [{"_id": "d", "text": "more cats"}])], index)
    assert retriever.document("d") is None
    assert retriever.reload()
    assert not retriever.reload()
    assert retriever.document("d").text == "more cats"
    assert other.document("d") is None
    with Collection.open(index) as collection:
        collection.compact()
        collection.commit()
    assert [r.doc_id for r in other.search("cats")] == ["a", "b"]


def test_an_index_built_again_in_the_same_folder_is_noticed(index, tmp_path):
    import shutil

    retriever = Retriever.open(index)
    shutil.rmtree(index)
    build_index(documents=[{"id": x, "text": "cats of another build"} for x in "abc"], out=index,
                encoders=["bm25", "flat=bm25,b=0"], search="bm25")  # fmt: skip
    assert retriever.reload()
    assert retriever.search("cats")[0].text == "cats of another build"


def test_adding_and_deleting(index):
    with Retriever.open(index) as retriever:
        assert retriever.add([{"id": "d", "text": "cats again"}, Document(doc_id="e", text="fish")]) == 2
        assert retriever.search("fish")[0].doc_id == "e"
        assert retriever.delete(["e", "nope"]) == ["nope"]
        assert retriever.search("fish") == []
        with pytest.raises(lexmax.DuplicateDocumentError):
            retriever.add([{"id": "d", "text": "twice"}])
        assert retriever.add([{"id": "d", "text": "twice"}], replace=True) == 1
        with pytest.raises(TypeError, match="sequence of strings"):
            retriever.delete("d")


def test_from_texts_lives_in_a_temporary_folder():
    with Retriever.from_texts(["cats purr", "dogs bark"], encoders=["bm25"]) as retriever:
        path = retriever.snapshot.path
        assert retriever.search("bark")[0].doc_id == "1"
        with pytest.raises(TypeError, match="temporary"):
            pickle.dumps(retriever)
    assert not path.exists()


def test_asearch(index):
    with Retriever.open(index) as retriever:
        assert asyncio.run(retriever.asearch("cats", 1))[0].doc_id == "a"


def test_pickles_and_copies_open_the_index_again(index):
    with Retriever.open(index, search="bm25 + flat", options={"bm25": {"algorithm": "scan"}}) as retriever:
        for other in (pickle.loads(pickle.dumps(retriever)), copy.copy(retriever), copy.deepcopy(retriever)):  # noqa: S301
            assert other.rank(["cats"], 2) == retriever.rank(["cats"], 2)
            other.close()
        assert retriever.rank(["cats"], 2)
    with Retriever.open(index, encoders={"bm25": LexicalEncoder()}) as retriever, pytest.raises(TypeError, match="objects"):
        pickle.dumps(retriever)


def test_another_encoder_is_refused(index):
    with pytest.raises(EncoderMismatchError, match=r"bm25:\w+, but this encoder is bm25:\w+"):
        Retriever.open(index, encoders={"bm25": LexicalEncoder(k1=0.5)})
    with pytest.raises(EncoderMismatchError):
        add_to_index([], index, encoders={"bm25": LexicalEncoder(k1=0.5)})
    with pytest.raises(ValueError, match="an encoder for the field 'x'; the fields are bm25, flat"):
        Retriever.open(index, encoders={"x": LexicalEncoder()})


def test_wrong_arguments(index):
    retriever = Retriever.open(index)
    with pytest.raises(ValueError, match="k must"):
        retriever.search("cats", k=0)
    with pytest.raises(ValueError, match="unknown field"):
        retriever.search("cats", filter="yeer == 1")
    for query in (None, ["cats"], 3):
        with pytest.raises(TypeError, match="a query is a string"):
            retriever.search(query)
    with pytest.raises(TypeError, match="sequence of strings"):
        retriever.search_batch("cats")
    with pytest.raises(TypeError, match="mapping of field to vectors"):
        retriever.search_vectors([{"cat": 1.0}], search="bm25 + flat")
    with pytest.raises(RepresentationError, match="no vectors for the field 'flat'"):
        retriever.search_vectors({"bm25": [{"cat": 1.0}]}, search="bm25 + flat")


def test_searches_during_commits_are_always_consistent(index, tmp_path):
    """Readers reload while a writer adds, deletes and compacts; every answer is one of a committed state."""
    retriever, failures, stop = Retriever.open(index, search="bm25 > flat"), [], threading.Event()

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
            vectors = encoder.encode_documents([f"more cats {i}"])
            collection.add([Document(doc_id=f"x{i}", text=f"more cats {i}")], {"bm25": vectors, "flat": vectors})
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


def test_what_public_signatures_need_is_exported():
    exported = {getattr(lexmax, name) for name in lexmax.__all__ if name != "__version__"}
    for name in ("build_index", "add_to_index", "add_field", "load_encoder", "import_vectors", "calibrate"):
        for hint in typing.get_type_hints(getattr(lexmax, name)).values():
            for part in flattened(hint):
                if inspect.isclass(part) and part.__module__.startswith("lexmax"):
                    assert part in exported, f"{name} needs {part.__name__}"


def flattened(hint):
    arguments = typing.get_args(hint)
    return [hint] if not arguments else [part for argument in arguments for part in flattened(argument)]
