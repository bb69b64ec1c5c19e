"""CIFF: round trips, files of another tool, files for another engine, and files that are wrong."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexmax import Collection, DatasetError, Retriever, build_index, export_ciff, import_ciff, import_vectors, to_sparse_vectors
from lexmax.index.check import check_index
from lexmax.index.collection import NewField
from lexmax.index.documents import Document
from lexmax.index.errors import DuplicateDocumentError, IndexFormatError, RepresentationError, StorageError
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.encoders.precomputed import VectorsEncoder
from lexmax.retrieval.exchange import ciff
from lexmax.retrieval.fields import encoder_record

FROM_ANOTHER_TOOL = Path(__file__).parents[2] / "data" / "ciff-toolkit.ciff"


def rows(n, seed, n_terms=40):
    rng = np.random.default_rng(seed)
    return [
        {
            f"t{term}": float(weight)
            for term, weight in zip(rng.permutation(n_terms)[:width], rng.gamma(2, 1, width), strict=True)
        }
        for width in rng.integers(0, 12, n)
    ]


def make_index(path, parts, deleted=()):
    """One segment and commit for each part."""
    encoder = encoder_record(VectorsEncoder(terms="strings"))
    number = 0
    for i, part in enumerate(parts):
        with Collection.create(path, {"vectors": NewField(encoder=encoder)}) if i == 0 else Collection.open(path) as collection:
            documents = [Document(doc_id=f"d{number + j}", text="") for j in range(len(part))]
            collection.add(documents, {"vectors": to_sparse_vectors(part)})
            number += len(part)
            if i == len(parts) - 1:
                assert collection.delete(deleted) == []
            collection.commit()
    return path


def contents(index):
    """doc_id -> {term: impact} of the live documents, in their order."""
    snapshot, found = Snapshot.open(index), {}
    field = snapshot.field("vectors")
    for whole, segment in zip(snapshot.segments, field.segments, strict=True):
        for position in range(segment.n_docs):
            if segment.live is None or segment.live[position]:
                terms, impacts = segment.inverted.row(position)
                strings = field.vocabulary.strings(terms)
                found[whole.documents.doc_ids[position]] = dict(zip(strings, impacts.tolist(), strict=True))
    return found


def lists_of(data: bytes) -> bytes:
    """Everything behind the header, whose description names the scale."""
    return data[1 + data[0] :]


@pytest.mark.parametrize(
    ("sizes", "deleted"),
    [([30], []), ([700], ["d0", "d699", "d300"]), ([5, 0, 40, 7], ["d4", "d20", "d44", "d45"]), ([3, 3], ["d0", "d1", "d2"])],
)
def test_export_and_import_lose_nothing(tmp_path, sizes, deleted):
    index = make_index(tmp_path / "a", [rows(size, seed) for seed, size in enumerate(sizes)], deleted)
    assert export_ciff(index, tmp_path / "a.ciff") == sum(sizes) - len(deleted)
    report = import_ciff(tmp_path / "a.ciff", tmp_path / "b")
    assert report.n_added == sum(sizes) - len(deleted)
    assert check_index(tmp_path / "b") == []
    assert list(contents(index)) == list(contents(tmp_path / "b"))
    assert contents(index) == contents(tmp_path / "b")
    export_ciff(tmp_path / "b", tmp_path / "b.ciff")
    assert lists_of((tmp_path / "a.ciff").read_bytes()) == lists_of((tmp_path / "b.ciff").read_bytes())


def test_scores_are_those_of_the_exported_index_times_its_scale(tmp_path):
    index = make_index(tmp_path / "a", [rows(50, 1), rows(60, 2)], ["d7"])
    export_ciff(index, tmp_path / "a.ciff")
    import_ciff(tmp_path / "a.ciff", tmp_path / "b")
    with Collection.open(index) as collection:  # query weights are rounded by what segments hold, deleted documents included
        collection.compact()
        collection.commit()
    queries = to_sparse_vectors(rows(20, 9))
    with Retriever.open(index) as first, Retriever.open(tmp_path / "b") as second:
        scale = first.info()["fields"]["vectors"]["scale"]
        for ours, theirs in zip(*(r.search_vectors(queries, [""] * 20, 10) for r in (first, second)), strict=True):
            assert [hit.doc_id for hit in ours] == [hit.doc_id for hit in theirs]
            assert [hit.score * scale for hit in ours] == pytest.approx([hit.score for hit in theirs], rel=1e-5)


@pytest.mark.parametrize(("postings", "docs"), [(1, 1000), (7, 1000), (1 << 20, 1), (1 << 20, 13)])
def test_chunks_make_no_difference(tmp_path, monkeypatch, postings, docs):
    export_ciff(make_index(tmp_path / "a", [rows(60, 3)]), tmp_path / "a.ciff")
    monkeypatch.setattr(ciff, "CHUNK_POSTINGS", postings)
    monkeypatch.setattr(ciff, "CHUNK_DOCS", docs)
    done = []
    import_ciff(tmp_path / "a.ciff", tmp_path / "b", progress=done.append)
    assert done == sorted(set(done))
    assert done[-1] == 60
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_file_of_another_tool(tmp_path):
    import_ciff(FROM_ANOTHER_TOOL, tmp_path / "i", tf="impacts")
    expected = {f"doc-{i}": {} for i in range(301)}
    expected["doc-0"] = {"cat": 3}
    expected["doc-1"] = {"cat": 200, "dog": 1}
    expected["doc-2"] = {"naïve": 255}
    expected["doc-299"] = {"naïve": 17}
    expected["doc-300"] = {"cat": 1}
    assert contents(tmp_path / "i") == expected
    export_ciff(tmp_path / "i", tmp_path / "again.ciff")
    theirs, ours = FROM_ANOTHER_TOOL.read_bytes(), (tmp_path / "again.ciff").read_bytes()
    assert lists_of(theirs) == lists_of(ours)
    assert theirs[1:14] == ours[1:14]  # version, four counts, total_terms_in_collection
    with Retriever.open(tmp_path / "i") as retriever:
        (hits,) = retriever.search_vectors(to_sparse_vectors([{"cat": 2.0, "dog": 1.0, "bird": 5.0}]), [""])
    assert [(hit.doc_id, round(hit.score, 3)) for hit in hits] == [("doc-1", 401.0), ("doc-0", 6.0), ("doc-300", 2.0)]


def test_another_tool_reads_our_file(tmp_path):
    read = import_module("ciff_toolkit.read")
    index = make_index(tmp_path / "a", [rows(30, 1), rows(300, 2)], ["d2", "d200"])
    export_ciff(index, tmp_path / "a.ciff")
    found = {}
    with read.CiffReader(tmp_path / "a.ciff") as reader:
        header = reader.header
        lists = list(reader.read_postings_lists())
        records = list(reader.read_documents())
    by_number = {}
    for postings_list in lists:
        number = 0
        for posting in postings_list.postings:
            number += posting.docid
            by_number.setdefault(number, {})[postings_list.term] = posting.tf
        assert postings_list.df == len(postings_list.postings)
        assert postings_list.cf == sum(posting.tf for posting in postings_list.postings)
    for i, record in enumerate(records):
        assert record.docid == i
        found[record.collection_docid] = by_number.get(i, {})
        assert record.doclength == sum(found[record.collection_docid].values())
    assert found == contents(index)
    assert (header.version, header.num_docs, header.total_docs) == (1, 328, 328)
    assert header.num_postings_lists == header.total_postings_lists == len(lists)
    assert header.total_terms_in_collection == sum(record.doclength for record in records)
    assert header.average_doclength == header.total_terms_in_collection / 328


def test_another_engine_finds_the_same_in_our_file(tmp_path):
    bmp = import_module("bmp")
    index = make_index(tmp_path / "a", [rows(400, 1, 200), rows(400, 2, 200)], ["d5", "d500"])
    export_ciff(index, tmp_path / "a.ciff")
    bmp.ciff2bmp(str(tmp_path / "a.ciff"), str(tmp_path / "a.bmp"), 8, False)
    theirs = bmp.Searcher(str(tmp_path / "a.bmp"))
    documents, rng = contents(index), np.random.default_rng(5)
    with Retriever.open(index) as retriever:
        scale = retriever.info()["fields"]["vectors"]["scale"]
        for _ in range(20):
            # bmp scales queries so that their heaviest term weighs 32: with such a one it keeps whole numbers as they are
            weights = [32, *rng.integers(1, 32, 7).tolist()]
            query = dict(zip((f"t{t}" for t in rng.permutation(200)[:8]), weights, strict=True))
            ids, scores = theirs.search(query, 5, 1.0, 1.0)
            exact = {doc_id: sum(query.get(t, 0) * impact for t, impact in row.items()) for doc_id, row in documents.items()}
            assert scores == sorted(exact.values(), reverse=True)[: len(scores)]
            assert [exact[doc_id] for doc_id in ids] == scores
            (ours,) = retriever.search_vectors(to_sparse_vectors([query]), [""], len(scores))
            assert [hit.score * scale for hit in ours] == pytest.approx(scores, rel=0.02)


def test_bm25_gives_term_counts_and_lengths(tmp_path):
    lines = ['{"_id": "a", "text": "cat cat dog"}', '{"_id": "b", "text": "bird"}', '{"_id": "c", "text": "dog"}']
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    build_index([str(tmp_path / "c.jsonl")], tmp_path / "i", encoders=["bm25"])
    with Collection.open(tmp_path / "i") as collection:
        collection.delete(["b"])
        collection.commit()
    export_ciff(tmp_path / "i", tmp_path / "i.ciff")
    import_ciff(tmp_path / "i.ciff", tmp_path / "j", tf="impacts")
    assert contents(tmp_path / "j") == {"a": {"cat": 2, "dog": 1}, "c": {"dog": 1}}
    assert b"\x12\x01a\x18\x03" in (tmp_path / "i.ciff").read_bytes()  # the record of a: a length of 3


def test_terms_without_strings_are_named_by_their_numbers(tmp_path):
    np.savez(tmp_path / "m.npz", indptr=[0, 1], indices=[7], data=[1.5], shape=[1, 9])
    import_vectors([tmp_path / "m.npz"], tmp_path / "i")
    export_ciff(tmp_path / "i", tmp_path / "i.ciff")
    import_ciff(tmp_path / "i.ciff", tmp_path / "j")
    assert contents(tmp_path / "j") == {"0": {"7": 255}}


# --- files made by hand: a message is a list of (field, value), a value a whole number or bytes ---


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def message(*fields):
    body = b"".join(
        varint(number << 3) + varint(value) if isinstance(value, int) else varint(number << 3 | 2) + varint(len(value)) + value
        for number, value in fields
    )
    return varint(len(body)) + body


def posting(*fields):
    return (4, message(*fields)[1:])


HEADER = message((1, 1), (2, 1), (3, 2))
LIST = message((1, b"cat"), (2, 2), (3, 3), posting((2, 1)), posting((1, 1), (2, 2)))
RECORDS = message((2, b"a")) + message((1, 1), (2, b"b"))


def write(path, *parts):
    path.write_bytes(b"".join(parts))
    return path


def test_fields_in_any_order_and_unknown_ones(tmp_path):
    unknown = [(9, 1 << 40), (10, b"more")]
    postings = message((1, b"cat"), posting((2, 1), (1, 0), *unknown), (3, 3), posting((2, 300), (1, 1)), *unknown)
    records = message((3, 2), (2, b"b"), (1, 1), *unknown) + message((2, b"a"), (1, 0))
    import_ciff(write(tmp_path / "f.ciff", message(*unknown, (3, 2), (2, 1)), postings, records), tmp_path / "i", tf="impacts")
    # the largest tf is 300: impacts are tf x 255 / 300, and 1 stays 1
    assert contents(tmp_path / "i") == {"a": {"cat": 1}, "b": {"cat": 255}}


def test_impacts_are_the_tf_when_none_is_above_255(tmp_path):
    postings = message((1, b"cat"), posting((2, 3)), posting((1, 1), (2, 17)))
    import_ciff(write(tmp_path / "f.ciff", HEADER, postings, RECORDS), tmp_path / "i")
    assert contents(tmp_path / "i") == {"a": {"cat": 3}, "b": {"cat": 17}}
    assert Snapshot.open(tmp_path / "i").field("vectors").scale == 1.0


def test_texts_come_from_a_corpus(tmp_path):
    (tmp_path / "c.jsonl").write_text(
        '{"_id": "b", "text": "second"}\n{"_id": "x", "text": "-"}\n{"_id": "a", "text": "first"}'
    )
    import_ciff(write(tmp_path / "f.ciff", HEADER, LIST, RECORDS), tmp_path / "i", documents=[str(tmp_path / "c.jsonl")])
    with Retriever.open(tmp_path / "i") as retriever:
        (hits,) = retriever.search_vectors(to_sparse_vectors([{"cat": 1.0}]), [""])
    assert [(hit.doc_id, hit.text) for hit in hits] == [("b", "second"), ("a", "first")]


@pytest.mark.parametrize(
    ("parts", "offset", "reason"),
    [
        ([b""], None, "no CIFF file"),
        ([b"\x1f\x8b\x08 a gzip file"], 0, "unpacked"),
        ([message((1, 1), (2, 10**9), (3, 2))], 0, "1000000000 postings lists"),
        ([HEADER, LIST, RECORDS, b"\0"], len(HEADER + LIST + RECORDS), "bytes after the last of 2 documents"),
        ([HEADER, message((1, b"cat"), posting((1, 2), (2, 1))), RECORDS], len(HEADER) + 6, "past the header's num_docs"),
        ([HEADER, message((1, b"cat"), posting((2, 1)), posting((2, 1))), RECORDS], len(HEADER) + 10, "does not follow"),
        ([HEADER, message((1, b"cat"), posting((2, (1 << 64) - 1))), RECORDS], len(HEADER) + 6, "tf is not within"),
        ([HEADER, LIST, message((3, 1 << 31), (2, b"a"))], len(HEADER + LIST), "doclength is not within"),
        ([HEADER, message((1, b"cat"), posting((2, 1 << 31))), RECORDS], len(HEADER) + 6, "tf is not within"),
        ([HEADER, message((1, b"cat"), (4, b"\x10")), RECORDS], len(HEADER) + 8, "not protobuf"),
        ([HEADER, message((1, b"cat"), (4, b"\x10" + b"\xff" * 10)), RECORDS], len(HEADER) + 8, "not protobuf"),
        ([HEADER, message((1, b"\xff")), RECORDS], len(HEADER) + 3, "not UTF-8"),
        ([HEADER, message(posting((2, 1))), RECORDS], len(HEADER), "empty term"),
        ([message((2, 2), (3, 2)), LIST, LIST, RECORDS], 4 + len(LIST) + 4, "'cat' comes twice"),
        ([HEADER, LIST, message((2, b"a")) * 2], len(HEADER + LIST) + 4, "docid comes twice"),
        ([HEADER, LIST, message((2, b"a"), (1, 2)) * 2], len(HEADER + LIST), "docid comes twice, or is past"),
    ],
)
def test_malformed_files_say_at_which_byte(tmp_path, parts, offset, reason):
    path = write(tmp_path / "f.ciff", *parts)
    with pytest.raises(DatasetError, match=reason) as refused:
        import_ciff(path, tmp_path / "i")
    assert str(path) in str(refused.value)
    if offset is not None:
        assert f"byte {offset}: " in str(refused.value)
    assert not (tmp_path / "i").exists()


def test_every_truncation_is_noticed(tmp_path):
    whole = HEADER + LIST + RECORDS
    for n in range(1, len(whole)):
        with pytest.raises(DatasetError, match="byte "):
            import_ciff(write(tmp_path / "f.ciff", whole[:n]), tmp_path / "i")
    with pytest.raises(DatasetError, match=r"none\.ciff"):
        import_ciff(tmp_path / "none.ciff", tmp_path / "i")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_is_an_error_or_another_index_but_never_worse(tmp_path_factory, data):
    whole = bytearray(HEADER + LIST + RECORDS)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        import_ciff(write(folder / "f.ciff", bytes(whole)), folder / "i")
    except (DatasetError, DuplicateDocumentError):
        return
    assert check_index(folder / "i") == []


def test_a_damaged_index_is_not_exported(tmp_path):
    index = make_index(tmp_path / "a", [rows(30, 1)])
    target = write(tmp_path / "a.ciff", b"kept")
    path = next(index.glob("field-*/inverted.lex"))
    damaged = bytearray(path.read_bytes())
    damaged[-1000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(IndexFormatError):
        export_ciff(index, target)
    assert target.read_bytes() == b"kept"
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_place_that_cannot_be_written(tmp_path):
    index = make_index(tmp_path / "a", [rows(3, 1)])
    with pytest.raises(StorageError, match="cannot be written"):
        export_ciff(index, tmp_path / "none" / "a.ciff")


def test_later_vectors_name_their_terms_or_number_them(tmp_path):
    import_ciff(write(tmp_path / "f.ciff", HEADER, LIST, RECORDS), tmp_path / "i")
    with Collection.open(tmp_path / "i") as collection:
        collection.add([Document(doc_id="c", text="")], {"vectors": to_sparse_vectors([{"bird": 9.0, "cat": 1.0}])})
        collection.add([Document(doc_id="d", text="")], {"vectors": to_sparse_vectors([{1: 3.0}])})
        with pytest.raises(RepresentationError, match="term 2 is past the vocabulary of 2 terms"):
            collection.add([Document(doc_id="e", text="")], {"vectors": to_sparse_vectors([{2: 3.0}])})
        collection.commit()
    assert contents(tmp_path / "i") == {"a": {"cat": 1}, "b": {"cat": 2}, "c": {"cat": 1, "bird": 9}, "d": {"bird": 3}}


def test_bm25_that_was_exported_and_imported_gives_the_same_scores(tmp_path):
    """Counts past a byte, lengths and deletes included."""
    words = ["whale " * 300 + "sea", "whale sea ship", "ship " * 20, "sea sea whale", "x y z"]
    docs = [{"id": f"d{i}", "text": words[i % 5] + f" n{i}"} for i in range(40)]
    build_index(out=tmp_path / "i", documents=docs, encoders=["bm25,k1=0.9,b=0.4,stemmer=none"])
    with Collection.open(tmp_path / "i") as collection:
        collection.delete(["d3", "d10"])
        collection.compact()
        collection.commit()
    export_ciff(tmp_path / "i", tmp_path / "i.ciff")
    import_ciff(tmp_path / "i.ciff", tmp_path / "j", k1=0.9, b=0.4)
    assert check_index(tmp_path / "j") == []
    queries = to_sparse_vectors([{"whale": 1.0, "ship": 1.0}, {"sea": 2.0, "n7": 1.0}, {"z": 1.0, "absent": 1.0}])
    with Retriever.open(tmp_path / "i") as first, Retriever.open(tmp_path / "j") as second:
        found = [
            [[(hit.doc_id, hit.score) for hit in hits] for hits in each.search_vectors(queries, [""] * 3, 50)]
            for each in (first, second)
        ]
    assert found[0] == found[1]
    assert len(found[0][0]) > 20


def test_counts_are_weighed_with_the_lengths_of_the_file(tmp_path):
    """They may differ from the sums of counts, as where stop words were counted."""
    records = message((2, b"a"), (3, 4)) + message((1, 1), (2, b"b"), (3, 12))
    import_ciff(write(tmp_path / "f.ciff", HEADER, LIST, records), tmp_path / "i", tf="counts")
    with Retriever.open(tmp_path / "i") as retriever:
        (hits,) = retriever.search_vectors(to_sparse_vectors([{"cat": 1.0}]), [""])
        assert retriever.info()["fields"]["vectors"]["average_length"] == 8
    idf = np.log(1 + 0.5 / 2.5)
    expected = {"a": 1 / (1 + 1.2 * (0.25 + 0.75 * 4 / 8)), "b": 2 / (2 + 1.2 * (0.25 + 0.75 * 12 / 8))}
    assert {hit.doc_id: hit.score for hit in hits} == pytest.approx(
        {k: idf * v for k, v in expected.items()}, abs=idf * 0.51 / 255
    )


def test_a_file_that_does_not_say_what_its_tf_are_is_refused(tmp_path):
    records = message((2, b"a"), (3, 4)) + message((1, 1), (2, b"b"), (3, 12))
    for path in (FROM_ANOTHER_TOOL, write(tmp_path / "f.ciff", HEADER, LIST, records)):
        with pytest.raises(DatasetError, match=r"--tf counts .* or --tf impacts"):
            import_ciff(path, tmp_path / "i")
    with pytest.raises(DatasetError, match="'a' has no length, which BM25 needs"):
        import_ciff(write(tmp_path / "g.ciff", HEADER, LIST, RECORDS), tmp_path / "i", tf="counts")
    with pytest.raises(ValueError, match="'counts' or 'impacts'"):
        import_ciff(FROM_ANOTHER_TOOL, tmp_path / "i", tf="tf")


def test_postings_whose_tf_is_zero_are_passed_over(tmp_path):
    postings = message((1, b"cat"), posting((2, 0)), posting((1, 1), (2, 2)))
    import_ciff(write(tmp_path / "f.ciff", HEADER, postings, RECORDS), tmp_path / "i")
    assert contents(tmp_path / "i") == {"a": {}, "b": {"cat": 2}}
