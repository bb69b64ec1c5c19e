"""What jobs do to an index, in the writer's thread: additions and deletions that wait together share one commit."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...index.collection import Collection
from ...index.errors import DuplicateDocumentError, IndexLockedError, RepresentationError
from ...index.fde.field import source_of
from ...index.representations import Vectors
from ...retrieval.encoders.registry import check_encoder
from ...retrieval.encoders.shared_pass import SharedPass
from ...retrieval.fields import add_field
from .jobs import Job

if TYPE_CHECKING:
    from ...retrieval.retriever import Retriever

ENCODED_TOGETHER = 64  # documents, between two steps of progress
LOCKED_S, AGAIN_S = 30.0, 0.1  # how long another process's writer is waited for

Outcome = dict[str, Any] | Exception
Pieces = list[dict[str, Vectors]]


def write_documents(retriever: "Retriever", jobs: Sequence[Job], ended: Callable[[Job, Outcome], None]) -> None:
    """Add and delete documents for jobs of one index, in their order, in one commit where none of them fails.

    A job that fails changes nothing. Where jobs share a commit and one fails, each is tried again alone.

    Parameters
    ----------
    retriever : Retriever
        Of the index; it searches the new commit before any job is told done.
    jobs : sequence of Job
        Of the kinds "add" and "delete".
    ended : callable
        Called with each job and its result, or why it failed.
    """
    retriever.reload()
    encoded = {job: _encoded(retriever, job) for job in jobs}
    try:
        results = _commit(retriever, jobs, encoded)
    except Exception as error:
        if len(jobs) == 1:
            ended(jobs[0], error)
            return
        for job in jobs:
            try:
                ended(job, _commit(retriever, [job], encoded)[0])
            except Exception as own:
                ended(job, own)
        return
    for job, result in zip(jobs, results, strict=True):
        ended(job, result)


def _encoded(retriever: "Retriever", job: Job) -> Pieces:
    """Vectors of a job's documents, piece by piece; before the index is locked, since models are slow."""
    records = retriever.snapshot.manifest.fields
    names = [name for name in retriever.fields if source_of(records, name) is None]
    shared = SharedPass(retriever.encoders(names))
    pieces = []
    for at in range(0, len(job.documents), ENCODED_TOGETHER):
        texts = [document.content for document in job.documents[at : at + ENCODED_TOGETHER]]
        pieces.append(shared.encode_documents(texts))
        job.n_done = min(at + ENCODED_TOGETHER, len(job.documents))
    return pieces


def _commit(retriever: "Retriever", jobs: Iterable[Job], encoded: Mapping[Job, Pieces]) -> list[Outcome]:
    with opened(retriever.snapshot.path) as collection:
        for name, encoder in retriever.encoders(retriever.fields).items():
            record = collection.manifest.fields.get(name)
            if record is None:
                raise RepresentationError(f"the field {name!r} was dropped meanwhile")
            check_encoder(record.encoder, encoder)
        results = [_apply(collection, job, encoded[job]) for job in jobs]
        generation = collection.commit().generation
    retriever.reload()
    return [{**result, "generation": generation} for result in results]


def _apply(collection: Collection, job: Job, pieces: Pieces) -> dict[str, Any]:
    if job.kind == "delete":
        missing = collection.delete(job.doc_ids)
        return {"deleted": len(set(job.doc_ids)) - len(missing), "missing": missing}
    _check_ids(job)
    n_replaced = 0
    for number, vectors in enumerate(pieces):
        documents = job.documents[number * ENCODED_TOGETHER : (number + 1) * ENCODED_TOGETHER]
        n_replaced += collection.add(documents, vectors, replace=job.replace)
    return {"added": len(job.documents), "replaced": n_replaced}


def _check_ids(job: Job) -> None:
    """Raise DuplicateDocumentError for an id that a job has twice: the second must not replace the first."""
    seen: set[str] = set()
    twice = [each.doc_id for each in job.documents if each.doc_id in seen or seen.add(each.doc_id)]  # type: ignore[func-returns-value]
    if twice:
        raise DuplicateDocumentError(twice, len(twice), where="twice in one request: ")


def compact(retriever: "Retriever", job: Job) -> dict[str, Any]:
    """Merge segments and drop deleted documents."""
    with opened(retriever.snapshot.path) as collection:
        n_before = len(collection.manifest.segments)
        collection.compact()
        manifest = collection.commit()
    retriever.reload()
    return {"segments_before": n_before, "segments": len(manifest.segments), "generation": manifest.generation}


def fill_field(retriever: "Retriever", encoder: str, search: str | None, job: Job) -> dict[str, Any]:
    """Add a field and fill it from the texts; what is filled stays after an interruption, and the same job goes on."""

    def progress(n_done: int) -> None:
        job.n_done = n_done

    job.n_total = retriever.snapshot.n_docs
    n_encoded = add_field(retriever.snapshot.path, encoder, search=search, progress=progress)
    retriever.reload()
    job.n_done = job.n_total = retriever.snapshot.n_docs
    return {"encoded": n_encoded, "fields": list(retriever.fields), "generation": retriever.generation}


@contextmanager
def opened(path: Path) -> Iterator[Collection]:
    """Open an index for writing; another process's writer is waited for.

    Raises
    ------
    IndexLockedError
        It does not end in time.
    """
    deadline = time.monotonic() + LOCKED_S
    while True:
        try:
            collection = Collection.open(path)
        except IndexLockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(AGAIN_S)
        else:
            break
    with collection:
        yield collection
