"""PLAID folders that lexmax writes, read by its own reader, and their lists against the codes."""

import json

import numpy as np
import pytest
from several_fields import Fields

from lexmax import RepresentationError, Retriever
from lexmax.__main__ import main
from lexmax.index.collection import Collection
from lexmax.retrieval.encoders.precomputed import TokenVectorsEncoder
from lexmax.retrieval.exchange import plaid_export
from lexmax.retrieval.exchange.plaid import PlaidFolder, import_plaid
from lexmax.retrieval.exchange.plaid_export import export_plaid
from lexmax.retrieval.fields import FieldEncoder

LIVE = [row for row in range(120) if row not in (7, 50)]


@pytest.fixture(scope="module")
def made():
    return Fields()


@pytest.fixture(scope="module")
def index(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("plaid") / "index"
    new = FieldEncoder(TokenVectorsEncoder(dim=32), {"nbits": 8, "n_centroids": 16}).new_field()
    with Collection.create(path, {"colbert": new, "dense": made.new["dense"]}, search="colbert") as collection:
        for rows in (range(60), range(60, 120)):
            collection.add(*made.batch(*rows, names=["colbert", "dense"]))
        collection.commit()
        collection.delete(["d7", "d50"])
        collection.commit()
    return path


@pytest.fixture
def folder(index, tmp_path, monkeypatch):
    """Several chunks."""
    monkeypatch.setattr(plaid_export, "CHUNK_DOCS", 50)
    assert export_plaid(index, tmp_path / "plaid", nbits=8, field="colbert") == 118
    return tmp_path / "plaid"


def test_tokens_come_back(folder, made):
    read = PlaidFolder(folder)
    assert (read.n_passages, read.codec.nbits) == (118, 8)
    found = [each.row(number) for each in read.vectors() for number in range(len(each))]
    cosines = []
    for row, tokens in zip(LIVE, found, strict=True):
        expected = made.vectors["colbert"].row(row)
        assert tokens.shape == expected.shape
        cosines.extend((tokens * expected).sum(axis=1).tolist())
    assert np.mean(cosines) > 0.995
    assert min(cosines) > 0.9  # buckets are quantiles: the furthest coordinates lose most


def test_lists_have_the_passages_of_each_centroid(folder):
    lengths, lists = np.load(folder / "ivf_lengths.npy"), np.load(folder / "ivf.npy")
    expected = {number: set() for number in range(len(lengths))}
    first = 0
    for chunk in range(3):
        codes = np.load(folder / f"{chunk}.codes.npy")
        widths = json.loads((folder / f"doclens.{chunk}.json").read_text())
        for passage, code in zip(
            np.repeat(np.arange(first, first + len(widths)), widths).tolist(), codes.tolist(), strict=True
        ):
            expected[code].add(passage)
        first += len(widths)
    found = np.split(lists, np.cumsum(lengths)[:-1])
    assert [each.tolist() for each in found] == [sorted(expected[number]) for number in range(len(lengths))]
    metadata = json.loads((folder / "metadata.json").read_text())
    assert (metadata["num_chunks"], metadata["num_documents"]) == (3, 118)


def test_an_import_of_it_answers_alike(index, folder, tmp_path, made):
    import_plaid(folder, tmp_path / "again", storage={"nbits": 8, "n_centroids": 16})
    query = made.vectors["colbert"].row(9)
    one = Retriever.open(index, exhaustive=True).search_vectors([query], None, 3)[0]
    other = Retriever.open(tmp_path / "again", exhaustive=True).search_vectors([query], None, 3)[0]
    assert other[0].doc_id == one[0].doc_id == "d9"
    assert other[0].text == f"{one[0].title} {one[0].text}"
    assert [each.score for each in other] == pytest.approx([each.score for each in one], rel=0.02)


def test_the_command_writes_one_and_tells_what_it_cannot(index, tmp_path, capsys):
    assert main(["export", str(index), str(tmp_path / "plaid"), "--format", "plaid", "--nbits", "2"]) == 0
    assert PlaidFolder(tmp_path / "plaid").codec.nbits == 2
    assert main(["export", str(index), str(tmp_path / "plaid"), "--format", "plaid"]) == 2
    assert "is there already" in capsys.readouterr().err
    with pytest.raises(RepresentationError, match="'dense' holds no token vectors"):
        export_plaid(index, tmp_path / "other", field="dense")
    with pytest.raises(ValueError, match="nbits is 3"):
        export_plaid(index, tmp_path / "other", nbits=3)
    assert main(["export", str(index), str(tmp_path / "f"), "--format", "qdrant", "--nbits", "2"]) == 2
