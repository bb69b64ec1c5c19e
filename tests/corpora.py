"""Small corpora and random vectors that tests share."""

import numpy as np

from lexmax import SparseVectors
from lexmax.index.collection import Collection, NewField
from lexmax.index.documents import Document
from lexmax.index.manifest import EncoderRecord
from lexmax.index.representations import Vectors
from lexmax.index.snapshot import Snapshot
from lexmax.index.sparse.field import SparseField

ENCODER = EncoderRecord(kind="splade", fingerprint="splade:0123456789abcdef", settings={})


def documents(n: int, start: int = 0, **metadata: object) -> list[Document]:
    return [
        Document(doc_id=f"d{i}", title=f"title {i}", text=f"text of {i}", metadata={"number": i, **metadata})
        for i in range(start, start + n)
    ]


def random_vectors(rng: np.random.Generator, n: int, n_terms: int, width: int, *, levels: int = 0) -> SparseVectors:
    """Rows of up to ``width`` terms with Zipf-like frequencies; few ``levels`` make many ties."""
    rows = []
    for _ in range(n):
        size = int(rng.integers(0, min(width, n_terms) + 1))
        weights = 1.0 / np.arange(1, n_terms + 1)
        terms = rng.choice(n_terms, size, replace=False, p=weights / weights.sum())
        values = rng.integers(1, levels + 1, size) if levels else rng.gamma(2.0, 0.5, size) + 0.01
        rows.append((terms.tolist(), np.asarray(values, np.float32).tolist()))
    return SparseVectors.from_rows(rows)


def write_index(path, fields: dict[str, NewField], vectors: dict[str, Vectors], cuts=(), deleted=(), **options) -> Snapshot:
    """An index of the fields' ``vectors``, committed in a segment for each part between ``cuts``."""
    n_docs = len(next(iter(vectors.values())))
    docs = documents(n_docs)
    ends = [*sorted({cut for cut in cuts if 0 < cut < n_docs}), n_docs]
    with Collection.create(path, fields, **options) as collection:
        for first, end in zip([0, *ends], ends, strict=False):
            rows = np.arange(first, end)
            collection.add(docs[first:end], {name: batch.select(rows) for name, batch in vectors.items()})
            collection.commit()
        if deleted:
            collection.delete([f"d{i}" for i in deleted])
            collection.commit()
    return Snapshot.open(path)


def make_index(
    path, vectors: SparseVectors, cuts: tuple[int, ...] = (), deleted: tuple[int, ...] = (), *, name: str = "sparse"
) -> Snapshot:
    """An index of one sparse field, "sparse", committed in a segment for each part between ``cuts``."""
    scale = 255.0 / max(1e-6, float(vectors.weights.max())) if vectors.n_postings else 1.0
    return write_index(path, {name: NewField(encoder=ENCODER, scale=scale)}, {name: vectors}, cuts, deleted)


def make_field(path, vectors: SparseVectors, cuts: tuple[int, ...] = (), deleted: tuple[int, ...] = ()) -> SparseField:
    """The field of `make_index`."""
    field = make_index(path, vectors, cuts, deleted).field("sparse")
    assert isinstance(field, SparseField)
    return field
