"""Distributions of an index against counts over its live documents; their picture."""

import numpy as np
import pytest
from several_fields import Fields

from lexmax import RepresentationError, Snapshot
from lexmax.__main__ import main
from lexmax.index.collection import Collection
from lexmax.retrieval.distributions import CENTROIDS, LISTS, POSTINGS, TERMS, TOKENS, distributions, plot_distributions
from lexmax.retrieval.searchers.calibration_record import Calibration, Effort

LIVE = [row for row in range(120) if row not in (7, 100)]
PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def made():
    return Fields()


@pytest.fixture(scope="module")
def index(tmp_path_factory, made):
    """Two segments, with a deleted document in each; token vectors are calibrated."""
    path = tmp_path_factory.mktemp("distributions") / "index"
    with Collection.create(path, made.new, search="splade") as collection:
        for rows in (range(60), range(60, 120)):
            collection.add(*made.batch(*rows))
            collection.commit()
        collection.delete(["d7", "d100"])
        efforts = tuple(Effort(options={}, recall=recall, error=0.01, cpu_ms=ms) for recall, ms in ((0.8, 1.0), (0.99, 4.0)))
        record = Calibration(k=10, generation=1, codec="c", n_docs=118, n_tokens=1, n_queries=9, queries="tokens",
                             oracle="exact tokens", efforts=efforts)  # fmt: skip
        collection.set_calibration("colbert", record.to_json())
        collection.commit()
    return path


def rows_of(vectors):
    return vectors.select(np.array(LIVE))


def test_counts_are_those_of_the_live_documents(index, made):
    found = distributions(Snapshot.open(index))
    assert set(found) == {"bm25", "splade", "colbert", "slim"}
    rows = rows_of(made.vectors["splade"])
    assert sorted(found["splade"].counts[POSTINGS].tolist()) == sorted(np.unique(rows.terms, return_counts=True)[1].tolist())
    assert sorted(found["splade"].counts[TERMS].tolist()) == sorted(np.diff(rows.indptr).tolist())
    tokens = rows_of(made.vectors["colbert"])
    assert sorted(found["colbert"].counts[TOKENS].tolist()) == sorted(np.diff(tokens.offsets).tolist())
    assert len(found["colbert"].counts[CENTROIDS]) == 16
    assert found["colbert"].counts[CENTROIDS].sum() <= made.vectors["colbert"].n_tokens
    assert found["colbert"].calibration.k == 10


def test_vectors_of_lists_are_counted(tmp_path, made):
    from dense_vectors import new_dense_field

    with Collection.create(
        tmp_path / "index", {"dense": new_dense_field(24, structure="ivf", n_lists=3)}, search="dense"
    ) as made_of:
        made_of.add(made.documents, {"dense": made.vectors["dense"]})
        made_of.compact()
        made_of.commit()
    counts = distributions(Snapshot.open(tmp_path / "index"))["dense"].counts[LISTS]
    assert counts.sum() == 120


def test_info_draws_them(index, tmp_path, capsys):
    for suffix in ("png", "svg"):
        assert main(["info", str(index), "--plot", str(tmp_path / f"picture.{suffix}")]) == 0
    assert (tmp_path / "picture.png").read_bytes().startswith(PNG)
    svg = (tmp_path / "picture.svg").read_text()
    assert svg.count('id="axes_') == 12
    assert main(["info", str(index), "--plot", "picture.txt"]) == 2
    assert "a picture is a .png, .svg or .pdf file" in capsys.readouterr().err


def test_an_index_of_dense_vectors_scanned_whole_has_nothing_to_show(tmp_path, made):
    with Collection.create(tmp_path / "index", {"dense": made.new["dense"]}, search="dense") as collection:
        collection.add(made.documents, {"dense": made.vectors["dense"]})
        collection.commit()
    with pytest.raises(RepresentationError, match="no field has postings"):
        plot_distributions(Snapshot.open(tmp_path / "index"), tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()
