"""BEIR folders as a suite takes them, and where the indexes of their corpora are kept.

A workplace is a folder; in it an index is named by its collection, the digest of the corpus and the fingerprint of the encoder,
so that what comes again is not built again, and a build that was cut goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ...index.documents import Document
from ...index.errors import DatasetError, IndexNotFoundError
from ...index.manifest import read as read_manifest
from ...index.storage import replace_file
from ...retrieval.build import build_index
from ...retrieval.corpora.reading import read_corpus
from ...retrieval.encoders.base import Encoder, MultiVectorEncoder
from ...retrieval.progress import Progress
from ...retrieval.retriever import Retriever
from ..datasets import COLLECTIONS, Dataset, load_dataset


def _say_nothing(_: str) -> None:
    pass


def _show_nothing(_: Sequence[str]) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where indexes and vectors are kept, and who is told of their making.

    Attributes
    ----------
    folder : Path
    say : callable
        Told what is going on, in lines.
    bar : callable
        Makes the progress bar of documents, given their sources.
    """

    folder: Path
    say: Callable[[str], None] = _say_nothing
    bar: Callable[[Sequence[str]], AbstractContextManager[Progress | None]] = _show_nothing


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A BEIR folder: its corpus, and what is asked of it.

    Attributes
    ----------
    folder : Path
    digest : str
        Hash of the corpus.
    dataset : Dataset
    doc_ids : frozenset of str or None
        The documents that count; None: all.
    """

    folder: Path
    digest: str
    dataset: Dataset
    doc_ids: frozenset[str] | None = None

    @property
    def sources(self) -> list[str]:
        """What `read_corpus` and `build_index` take for the whole corpus."""
        return [str(self.folder)]

    def documents(self) -> Iterator[Document]:
        """Read the documents that count."""
        return (d for d in read_corpus(self.sources) if self.doc_ids is None or d.doc_id in self.doc_ids)

    def place(self, fingerprint: str, work: Workplace) -> Path:
        """Return where what an encoder makes of this corpus is kept."""
        return work.folder / f"{self.folder.name}-{self.digest[:12]}-{fingerprint.replace(':', '-')}"


def load_collection(name: str, split: str = "test", *, n_documents: int = 0) -> Collection:
    """Load queries and judgments of a BEIR folder, or of one in the repository's ``eval/collections``.

    Parameters
    ----------
    name, split : str
    n_documents : int
        The documents judged, and others up to so many in all, see `.validation.dev_documents`; 0: all.

    Raises
    ------
    DatasetError
        There is no such folder or corpus, or a file is malformed.
    ValueError
        ``n_documents`` < 0.
    """
    folders = [folder.resolve() for folder in (Path(name), COLLECTIONS / name) if folder.is_dir()]
    if not folders:
        raise DatasetError("no such folder; a suite is made of BEIR folders", path=name)
    corpora = [folders[0] / file for file in ("corpus.jsonl", "corpus.jsonl.gz") if (folders[0] / file).is_file()]
    if not corpora:
        raise DatasetError("the folder has no corpus.jsonl or corpus.jsonl.gz", path=folders[0])
    with corpora[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    dataset = load_dataset(folders[0], split)
    if not n_documents:
        return Collection(folder=folders[0], digest=digest, dataset=dataset)
    from ...retrieval.training.validation import dev_documents  # needs torch

    doc_ids = frozenset(dev_documents(str(folders[0]), dataset.qrels, n_documents))
    return Collection(folder=folders[0], digest=_digest_of(doc_ids), dataset=dataset, doc_ids=doc_ids)


def open_index(encoder: Encoder, collection: Collection, work: Workplace) -> Retriever:
    """Open the index of a collection, which is built when it is not there yet, or finished when it is not whole.

    Errors are those of `build_index` and `Retriever.open`.
    """
    path = collection.place(encoder.fingerprint, work)
    if not is_complete(path):
        if collection.doc_ids is None:
            _build(collection.sources, path, encoder, work)
        else:
            _build_of(collection.documents(), path, encoder, work)
    return Retriever.open(path, encoder=encoder)


def open_index_of(
    doc_ids: Iterable[str], encoder: MultiVectorEncoder, collection: Collection, work: Workplace
) -> Retriever:  # fmt: skip
    """Open an index that holds the documents ``doc_ids``: the whole collection's if there is one, else one of these alone.

    Errors are those of `open_index`.
    """
    whole = collection.place(encoder.fingerprint, work)
    if is_complete(whole):
        return Retriever.open(whole, encoder=encoder)
    wanted = set(doc_ids)
    path = whole.with_name(f"{whole.name}-of-{_digest_of(wanted)[:12]}")
    if not is_complete(path):
        _build_of((document for document in collection.documents() if document.doc_id in wanted), path, encoder, work)
    return Retriever.open(path, encoder=encoder)


def is_complete(path: Path) -> bool:
    """Whether there is an index whose build came to its end."""
    try:
        return read_manifest(path).build is None
    except IndexNotFoundError:
        return False


def _build(sources: Sequence[str], path: Path, encoder: Encoder, work: Workplace) -> None:
    work.say(f"building {path}")
    with work.bar(sources) as bar:
        build_index(sources, path, encoder=encoder, progress=bar)


def _build_of(documents: Iterable[Document], path: Path, encoder: Encoder, work: Workplace) -> None:
    """Build an index of some documents, whose texts lie in a file beside it so long."""
    corpus = path.with_name(f"{path.name}.jsonl")
    corpus.parent.mkdir(parents=True, exist_ok=True)
    replace_file(corpus, "".join(map(_line, documents)).encode())
    _build([str(corpus.resolve())], path, encoder, work)
    corpus.unlink()


def _digest_of(doc_ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(doc_ids)).encode()).hexdigest()


def _line(document: Document) -> str:
    """One document as a line of a corpus, with what encoders see of it."""
    return json.dumps({"_id": document.doc_id, "title": document.title, "text": document.text}) + "\n"
