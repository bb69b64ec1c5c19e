"""Documents that another program has cut into words, in memory: to a BM25 index, without making texts of them first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path

from ...index.arguments import texts_of
from ...index.collection import BufferLimits
from ...index.document_buffer import DocumentColumns
from ...index.representations.sparse import SparseVectors
from ..build import BuildReport
from ..encoders.lexical import LexicalEncoder
from ..encoders.specs import parse_encoder_spec
from ..fields import FieldEncoder
from ..progress import Progress
from .importing import write_index

BATCH_DOCUMENTS = 1 << 16


def import_tokens(
    token_lists: Iterable[Sequence[str]], out: Path | str, *, doc_ids: Iterable[str] | None = None, encoder: str = "bm25",
    progress: Progress | None = None, limits: BufferLimits | None = None,
) -> BuildReport:  # fmt: skip
    """Build a BM25 index of lists of words: of all of them or, after an error, of none. Its documents have no texts.

    Parameters
    ----------
    token_lists : iterable of sequences of str
        One document each; see `LexicalEncoder.encode_tokens`. An iterator is read batch by batch.
    out : Path or str
        The index folder, made anew.
    doc_ids : iterable of str or None
        One for each document; None: its position, "0", "1", ...
    encoder : str
        The field and its settings, as ``--encoder`` takes them: ``bm25,stemmer=none,stop_words=none`` for words that are
        stems already.
    progress : callable or None
        Called with the number of documents done.
    limits : BufferLimits or None
        Memory of the writer.

    Raises
    ------
    TypeError
        A document that is no list of strings.
    ValueError
        The encoder counts no words, or there are fewer or more doc_ids than documents.
    FileExistsError
        ``out`` holds an index.
    DuplicateDocumentError, DatasetError
        An id that comes twice, is empty or overlong.

    >>> import_tokens([["cats", "purr"], ["dogs", "bark"]], "idx").n_added  # doctest: +SKIP
    2
    """
    spec = parse_encoder_spec(encoder)
    if spec.kind != LexicalEncoder.kind:
        raise ValueError(f"lists of words are counted by BM25, and the encoder {encoder!r} reads texts")
    counter = LexicalEncoder(**spec.settings)
    new = FieldEncoder(counter, spec.storage).new_field()
    return write_index(out, spec.name, new, _batches(counter, token_lists, doc_ids), progress=progress, limits=limits)


def _batches(
    encoder: LexicalEncoder, token_lists: Iterable[Sequence[str]], doc_ids: Iterable[str] | None
) -> Iterator[tuple[DocumentColumns, SparseVectors]]:
    ids = map(str, count()) if doc_ids is None else iter(texts_of(doc_ids, "doc_ids"))
    lists = iter(token_lists)
    while batch := list(islice(lists, BATCH_DOCUMENTS)):
        some, empty = list(islice(ids, len(batch))), [""] * len(batch)
        if len(some) < len(batch):
            raise ValueError("there are fewer doc_ids than token_lists")
        yield DocumentColumns(some, empty, empty), encoder.encode_tokens(batch)
    if doc_ids is not None and next(ids, None) is not None:
        raise ValueError("there are more doc_ids than token_lists")
