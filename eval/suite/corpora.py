"""BEIR folders as a suite takes them, and where the indexes of their corpora are kept.

A workplace is a folder; in it an index is named by its collection and the digest of the corpus. It gets the fields that suites
ask for, so that nothing is encoded twice, and a build that was cut continues.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ...index.documents import Document
from ...index.errors import DatasetError, IndexNotFoundError
from ...index.manifest import read as read_manifest
from ...retrieval.build import build_index
from ...retrieval.corpora.folders import beir_corpus
from ...retrieval.corpora.reading import read_corpus
from ...retrieval.encoders.registry import check_encoder
from ...retrieval.encoders.specs import EncoderSpec
from ...retrieval.fields import FieldEncoder, add_field
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
    corpus = beir_corpus(folders[0])
    if corpus is None:
        raise DatasetError("the folder has no corpus.jsonl or corpus.jsonl.gz", path=folders[0])
    with corpus.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    dataset = load_dataset(folders[0], split)
    if not n_documents:
        return Collection(folder=folders[0], digest=digest, dataset=dataset)
    from ...retrieval.training.validation import dev_documents  # needs torch

    doc_ids = frozenset(dev_documents(str(folders[0]), dataset.qrels, n_documents))
    return Collection(folder=folders[0], digest=_digest_of(doc_ids), dataset=dataset, doc_ids=doc_ids)


def open_index(fields: Mapping[str, FieldEncoder], collection: Collection, work: Workplace) -> Retriever:
    """Open the index of a collection: built when it is not there, finished when it is not whole, its missing fields added.

    Errors are those of `build_index`, `add_field` and `Retriever.open`.
    """
    path = work.folder / f"{collection.folder.name}-{collection.digest[:12]}"
    try:
        manifest = read_manifest(path)
    except IndexNotFoundError:
        manifest = None
    if manifest is None or manifest.build is not None:
        kept = fields if manifest is None else {name: fields[name] for name in manifest.fields if name in fields}
        _build(kept, collection, path, work)
    manifest = read_manifest(path)
    for name, each in fields.items():
        record = manifest.fields.get(name)
        if record is not None:
            check_encoder(record.encoder, each.encoder)
        if record is None or not record.complete:
            work.say(f"adding the field {name} to {path}")
            with work.bar(collection.sources) as bar:
                spec = EncoderSpec(name=name, storage=each.storage)
                add_field(path, spec, encoder=each.encoder, progress=bar)
    return Retriever.open(path, search=" + ".join(fields), encoders={name: each.encoder for name, each in fields.items()})


def _build(fields: Mapping[str, FieldEncoder], collection: Collection, path: Path, work: Workplace) -> None:
    work.say(f"building {path}")
    with work.bar(collection.sources) as bar:
        if collection.doc_ids is None:
            build_index(collection.sources, path, encoders=fields, progress=bar)
        else:
            build_index(out=path, documents=collection.documents(), encoders=fields, progress=bar)


def _digest_of(doc_ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(doc_ids)).encode()).hexdigest()
