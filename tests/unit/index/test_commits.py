"""What many commits leave behind: few segments, no open files, readers that are not disturbed, and weights that are right."""

import subprocess
import sys
from math import log
from pathlib import Path

import numpy as np
import pytest
from corpora import ENCODER, random_vectors
from several_fields import Fields

from lexmax import Collection
from lexmax.index import merging, segment_store
from lexmax.index.check import check_index
from lexmax.index.collection import NewField
from lexmax.index.documents import Document
from lexmax.index.manifest import SegmentRecord
from lexmax.index.merging import FANOUT, merge_groups, small_run, tier_of
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.encoders.lexical import LexicalEncoder
from lexmax.retrieval.searchers.exhaustive import ExhaustiveSearcher


def records(sizes):
    return [SegmentRecord(name=str(i), n_docs=size) for i, size in enumerate(sizes)]


def no_size(_):
    return 0.0


def test_tiers_are_powers_of_the_fanout():
    assert [tier_of(n) for n in (0, 1, 63, 64, 511, 512, 4095, 4096, 32768)] == [0, 0, 0, 1, 1, 2, 2, 3, 4]


BATCHES = {
    "1": lambda rng: 1,
    "7": lambda rng: 7,
    "100": lambda rng: 100,
    "3000": lambda rng: 3000,
    "mixed": lambda rng: int(2 ** rng.uniform(0, 12)),
    "seldom large": lambda rng: 5000 if rng.random() < 0.01 else 1,
}


@pytest.mark.parametrize("batch", BATCHES)
def test_segments_stay_few_and_documents_are_rewritten_seldom(batch):
    """The cost of commits does not grow with the index: a few small segments do not rewrite a large one."""
    rng = np.random.default_rng(1)
    sizes, n_written, n_docs = [], 0, 0
    while n_docs < 40_000:
        sizes.append(BATCHES[batch](rng))
        n_docs += sizes[-1]
        while n := small_run(records(sizes), no_size):
            n_written += sum(sizes[-n:])
            sizes[-n:] = [sum(sizes[-n:])]
        assert len(sizes) <= 24
    assert sum(sizes) == n_docs
    assert n_written <= 12 * n_docs


def test_runs_that_a_merge_could_not_hold_stay():
    assert small_run(records([1] * 8), no_size) == 8
    assert small_run(records([1] * 7), no_size) == 0
    assert small_run(records([merging.MERGED_DOCS // 4] * 8), no_size) == 0
    assert small_run(records([1] * 8), lambda _: 0.2) == 0
    assert merge_groups(records([1] * 8), lambda _: 0.4) == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    assert merge_groups([], no_size) == []


ONE_BY_ONE = """
import os, resource, sys
sys.path.insert(0, sys.argv[2])
from several_fields import Fields
from lexmax import Collection
from lexmax.index.snapshot import Snapshot
several, path = Fields(300), sys.argv[1]
Collection.create(path + "-warm", several.new).close()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
n_before = len(os.listdir("/proc/self/fd"))
readers = []
with Collection.create(path, several.new) as collection:
    for row in range(300):
        collection.add(*several.batch(row))
        collection.commit()
        readers.append(Snapshot.open(path, previous=readers[-1] if readers else None))
        assert len(collection.manifest.segments) <= 21, len(collection.manifest.segments)
n_after = len(os.listdir("/proc/self/fd"))
assert n_after == n_before, (n_before, n_after)
for n_docs in (1, 8, 9, 63, 64, 100, 300):
    several.same(readers[n_docs - 1], range(n_docs))
print(len(readers[-1].segments))
"""


def test_commits_of_one_document_leave_few_segments_and_no_descriptors(tmp_path):
    """300 commits and 300 open snapshots under a limit of 64 open files; older readers answer as they did."""
    folder = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, str(tmp_path / "idx"), folder], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= 21
    assert check_index(tmp_path / "idx") == []
    Fields(300).same(Snapshot.open(tmp_path / "idx"), range(300))
    folders = [path for path in (tmp_path / "idx").iterdir() if path.is_dir()]
    assert len(folders) == 6 * int(run.stdout)


def test_merging_while_documents_are_deleted_and_replaced(tmp_path, several):
    rng = np.random.default_rng(5)
    live: set[int] = set()
    with Collection.create(tmp_path / "idx", several.new) as collection:
        for _ in range(60):
            rows = rng.choice(120, 4, replace=False).tolist()
            assert collection.add(*several.batch(*rows), replace=True) == len(live & set(rows))
            live |= set(rows)
            gone = rng.choice(sorted(live), 2, replace=False).tolist()
            assert collection.delete([f"d{row}" for row in gone]) == []
            live -= set(gone)
            collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert len(snapshot.segments) < 20
    several.same(snapshot, sorted(live))
    assert check_index(tmp_path / "idx") == []


def test_merged_segments_without_a_live_document_vanish(tmp_path, several):
    with Collection.create(tmp_path / "idx", several.new) as collection:
        collection.add(*several.batch(*range(100)))
        collection.commit()
        for row in range(100, 109):
            collection.add(*several.batch(row))
            collection.delete([f"d{row}"])
            collection.commit()
        assert len(collection.manifest.segments) <= FANOUT
        collection.commit()
    several.same(Snapshot.open(tmp_path / "idx"), range(100))
    assert check_index(tmp_path / "idx") == []


def test_a_build_is_not_merged_before_it_ends(tmp_path, several, monkeypatch):
    from lexmax.index.manifest import BuildState

    monkeypatch.setattr(segment_store, "small_run", lambda *_: pytest.fail("merged"))
    with Collection.create(tmp_path / "idx", several.new) as collection:
        collection.build = BuildState(sources=["a"], n_records=1, last_doc_id="d0")
        for row in range(10):
            collection.add(*several.batch(row))
            collection.commit()
    assert len(Snapshot.open(tmp_path / "idx").segments) == 10


def test_many_snapshots_hold_no_descriptors(tmp_path, several):
    with Collection.create(tmp_path / "idx", several.new) as collection:
        collection.add(*several.batch(*range(30)))
        collection.commit()
    Snapshot.open(tmp_path / "idx")
    n_before = len(list(Path("/proc/self/fd").iterdir()))
    snapshots = [Snapshot.open(tmp_path / "idx") for _ in range(20)]
    assert len(list(Path("/proc/self/fd").iterdir())) == n_before
    del snapshots


# --- BM25 over commits ---


def bm25_index(path, groups, *, k1=1.2, b=0.75):
    """An index of BM25 counts of texts, a commit per group."""
    encoder, n = LexicalEncoder(), 0
    with Collection.create(path, {"bm25": NewField(encoder=ENCODER, options={"bm25": {"k1": k1, "b": b}})}) as collection:
        for texts in groups:
            docs = [Document(doc_id=str(n + i), text=text) for i, text in enumerate(texts)]
            collection.add(docs, {"bm25": encoder.encode_documents(texts)})
            collection.commit()
            n += len(texts)
    return Snapshot.open(path)


def saturated(texts, number, word, *, k1=1.2, b=0.75):
    """Weight of a word in a text by the formula, in floats."""
    lengths = [len(text.split()) for text in texts]
    tf = texts[number].split().count(word)
    return tf / (tf + k1 * (1 - b + b * lengths[number] / (sum(lengths) / len(lengths))))


def stored(snapshot, number, word):
    """Weight of a word in a document as the index has it; 0 where it does not occur."""
    field = snapshot.field("bm25")
    row = field.document_row(int(snapshot.find([str(number)])[0]))
    return dict(zip(field.vocabulary.strings(row.terms), row.weights.tolist(), strict=True)).get(word, 0.0)


def test_counts_beyond_a_byte_are_counted(tmp_path):
    groups = [["ant " * 4000 + "bee"], ["ant " * 260 + "cat " * 20, "ant " * 256, "dog " * 70_000], ["ant bee"]]
    texts = [text for group in groups for text in group]
    snapshot = bm25_index(tmp_path / "idx", groups, k1=100, b=0.75)
    with Collection.open(tmp_path / "idx") as collection:
        collection.compact()
        collection.commit()
    at_once = bm25_index(tmp_path / "one", [texts], k1=100, b=0.75)
    for each in (Snapshot.open(tmp_path / "idx"), at_once):
        for number, text in enumerate(texts):
            for word in set(text.split()):
                expected = saturated(texts, number, word, k1=100)
                assert stored(each, number, word) == pytest.approx(max(expected, 1 / 255), abs=0.51 / 255), (number, word)
    field = at_once.field("bm25")
    hits = ExhaustiveSearcher(field).search(field.query_vectors(LexicalEncoder().encode_queries(["ant"])), 10)
    idf = log(1 + (5 - 4 + 0.5) / (4 + 0.5))
    expected = sorted((idf * saturated(texts, number, "ant", k1=100) for number in (0, 1, 2, 4)), reverse=True)
    assert hits.query(0)[1].tolist() == pytest.approx(expected, abs=idf * 1.5 / 255)
    assert snapshot.n_docs == 5


def test_a_long_document_before_short_ones(tmp_path):
    """Impacts of the first commit are computed with its own average length; the next commit puts that right."""
    rng = np.random.default_rng(4)
    texts = [
        "ant " * 3000 + "bee",
        *(" ".join(rng.choice(["ant", "bee", "cat", "dog"], rng.integers(3, 9))) for _ in range(200)),
    ]
    drifted = bm25_index(tmp_path / "idx", [texts[:1], texts[1:]])
    info = drifted.info()
    average = sum(len(text.split()) for text in texts) / len(texts)
    assert info["fields"]["bm25"]["average_length"] == pytest.approx(average, abs=0.01)
    assert info["fields"]["bm25"]["average_length_drift"] == 0
    assert info["fields"]["bm25"]["warnings"] == []
    averages = [segment["fields"]["bm25"]["average_length"] for segment in info["segments"]]
    assert averages == pytest.approx([average, average], abs=0.01)
    with Collection.open(tmp_path / "idx") as collection:
        collection.compact()
        collection.commit()
    compacted = Snapshot.open(tmp_path / "idx")
    assert compacted.info()["fields"]["bm25"]["average_length_drift"] == 0
    merged = bm25_index(tmp_path / "merged", [[text] for text in texts[:64]])
    assert len(merged.segments) == 1
    assert merged.info()["fields"]["bm25"]["average_length_drift"] == 0
    for snapshot, present in ((compacted, texts), (merged, texts[:64])):
        for number in (0, 1, 17, 63):
            for word in set(present[number].split()):
                expected = max(saturated(present, number, word), 1 / 255)
                assert stored(snapshot, number, word) == pytest.approx(expected, abs=0.51 / 255)


def test_compaction_weighs_a_lone_segment_again_whose_average_is_not_its_own(tmp_path):
    """The long document that it was weighed with is gone: it was deleted, and its segment vanished in a merge."""
    shorts = ["ant bee cat", "ant dog"] * 50
    bm25_index(tmp_path / "idx", [["ant " * 5000], shorts])
    with Collection.open(tmp_path / "idx") as collection:
        collection.delete(["0"])
        collection.compact()
        collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    assert snapshot.info()["fields"]["bm25"]["average_length_drift"] == 0
    assert stored(snapshot, 1, "bee") == pytest.approx(saturated(shorts, 0, "bee"), abs=0.51 / 255)
    name = snapshot.segments[0].record.name
    part = snapshot.field("bm25").segments[0].record.folder
    with Collection.open(tmp_path / "idx") as collection:
        collection.compact()
        collection.commit()
    again = Snapshot.open(tmp_path / "idx")
    assert (again.segments[0].record.name, again.field("bm25").segments[0].record.folder) == (name, part)


def test_weights_beyond_the_first_segment_saturate_and_are_counted(tmp_path, monkeypatch):
    """One scale serves all segments; `info` has the share of weights that saturate where the scale is not fitted again."""
    monkeypatch.setattr("lexmax.index.sparse.writer.REFITTED_POSTINGS", 0)
    rng = np.random.default_rng(6)
    first, later = (random_vectors(rng, 10, 20, 5, levels=levels) for levels in (2, 50))
    new = {"splade": NewField(encoder=ENCODER)}
    with Collection.create(tmp_path / "idx", new) as collection:
        for i, vectors in enumerate((first, later)):
            collection.add([Document(doc_id=f"{i}-{j}", text="") for j in range(10)], {"splade": vectors})
            collection.commit()
    snapshot = Snapshot.open(tmp_path / "idx")
    errors = [segment["fields"]["splade"]["quantisation_error"] for segment in snapshot.info()["segments"]]
    assert snapshot.field("splade").scale == pytest.approx(255 / first.weights.max())
    assert errors[0]["saturated"] == 0
    assert errors[1]["saturated"] > 0.5
