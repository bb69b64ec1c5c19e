"""Changes of indexes, where the server allows them, and the jobs that they become."""

from functools import partial
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Path, Request, Response

from ...index.documents import Document
from ..errors import RefusedError
from ..indexes import Indexes
from ..limits import Limits
from ..observing.notes import notes_of
from ..schemas.writing import CompactBody, FieldBody, IndexBody, JobAnswer, JobsAnswer, writing_bodies
from ..searching.service import Service
from ..writing.changes import compact, fill_field
from ..writing.jobs import Job
from ..writing.specs import checked_spec
from ..writing.writer import Writer, make_index
from .common import errors, json_of

ERRORS = errors(403, 404, 409, 415, 422, 507)
WHOLE = CompactBody()
ANSWERS: dict[int | str, dict[str, Any]] = {**ERRORS, 202: {"model": JobAnswer}}


class _Change:
    """Hands jobs to the writer and answers for them."""

    def __init__(self, writer: Writer | None, limits: Limits) -> None:
        self._writer, self._limits = writer, limits

    @property
    def writer(self) -> Writer:
        if self._writer is None:
            raise RefusedError(403, "forbidden", "this server does not write: `lexmax serve --writable` does")
        return self._writer

    async def answer(self, job: Job, *, wait: bool) -> Response:
        """Answer 200 with a job that is done, 202 with one that is not yet, or why it failed."""
        writer = self.writer
        if job.service is not None:
            job.service.check_ready()
        writer.submit(job)
        if not wait or not await writer.wait(job, self._limits.deadline_s):
            return json_of(job.answer(), 202)
        if job.failure is not None:
            raise job.failure
        return json_of(job.answer())


def add_writing_routes(app: FastAPI, indexes: Indexes, limits: Limits, writer: Writer | None) -> None:
    """Add them; without a writer they answer 403."""
    change = _Change(writer, limits)

    async def only(request: Request) -> Service:
        change.writer  # noqa: B018  refuses before anything is looked for
        return _noted(request, indexes.service())

    async def named(request: Request, index: Annotated[str, Path(description="The name of the index.")]) -> Service:
        change.writer  # noqa: B018
        return _noted(request, indexes.service(index))

    bodies = writing_bodies(limits)
    _add_documents(app, "/v1", Depends(only), change, *bodies)
    _add_documents(app, "/v1/indexes/{index}", Depends(named), change, *bodies)
    _add_structure(app, "/v1", Depends(only), change)
    _add_structure(app, "/v1/indexes/{index}", Depends(named), change)
    _add_jobs(app, indexes, change)


def _add_documents(app: FastAPI, at: str, chosen: Any, change: _Change, add_body: Any, delete_body: Any) -> None:
    @app.post(f"{at}/documents", response_model=JobAnswer, responses=ANSWERS)
    async def add(body: Annotated[add_body, Body()], service: Annotated[Service, chosen]) -> Response:
        """Add documents, or replace them: all or none. They are on the disk, and found, when the job is done."""
        documents = [Document(doc_id=each.doc_id, text=each.text, title=each.title, metadata=each.metadata)
                     for each in body.documents]  # fmt: skip
        job = Job(
            kind="add", index=service.name, service=service, documents=documents, replace=body.replace, n_total=len(documents)
        )
        return await change.answer(job, wait=body.wait)

    @app.post(f"{at}/documents/delete", response_model=JobAnswer, responses=ANSWERS)
    async def delete(body: Annotated[delete_body, Body()], service: Annotated[Service, chosen]) -> Response:
        """Delete documents by id; ids that are not there are told, and are no error."""
        job = Job(kind="delete", index=service.name, service=service, doc_ids=body.doc_ids, n_total=len(body.doc_ids))
        return await change.answer(job, wait=body.wait)

    @app.delete(f"{at}/documents/{{doc_id:path}}", response_model=JobAnswer, responses=ANSWERS)
    async def delete_one(doc_id: str, service: Annotated[Service, chosen]) -> Response:
        """Delete one document; 404 where it is not there."""
        job = Job(kind="delete", index=service.name, service=service, doc_ids=[doc_id])
        response = await change.answer(job, wait=True)
        if job.result is not None and job.result["missing"]:
            raise RefusedError(404, "not_found", f"no document {doc_id[:200]!r}")
        return response


def _add_structure(app: FastAPI, at: str, chosen: Any, change: _Change) -> None:
    @app.post(f"{at}/compact", response_model=JobAnswer, responses=ANSWERS)
    async def compact_index(service: Annotated[Service, chosen], body: Annotated[CompactBody, Body()] = WHOLE) -> Response:
        """Merge segments and drop deleted documents."""
        job = Job(kind="compact", index=service.name, service=service, change=partial(compact, service.retriever))
        return await change.answer(job, wait=body.wait)

    @app.post(f"{at}/fields", response_model=JobAnswer, responses=ANSWERS)
    async def add_field(body: Annotated[FieldBody, Body()], service: Annotated[Service, chosen]) -> Response:
        """Add a vector field and fill it; it can be searched when the job is done."""
        checked_spec(body.encoder)
        work = partial(fill_field, service.retriever, body.encoder, body.search)
        job = Job(kind="field", index=service.name, service=service, change=work)
        return await change.answer(job, wait=body.wait)


def _add_jobs(app: FastAPI, indexes: Indexes, change: _Change) -> None:
    @app.post("/v1/indexes", response_model=JobAnswer, responses=ANSWERS)
    async def make(body: Annotated[IndexBody, Body()]) -> Response:
        """Make an empty index and serve it."""
        home = change.writer.home
        if home is None:
            message = "this server serves single indexes: `lexmax serve FOLDER --writable` makes new ones in the folder"
            raise RefusedError(403, "forbidden", message)
        if any(name == body.name for name, _ in indexes):
            raise RefusedError(409, "conflict", "there is an index of this name already")
        specs = [checked_spec(text) for text in body.encoders]
        work = partial(make_index, home.folder / body.name, specs, body.search, "cpu")
        return await change.answer(Job(kind="index", index=body.name, change=work), wait=body.wait)

    @app.get("/v1/jobs", response_model=JobsAnswer, responses=errors(403))
    async def list_jobs() -> Response:
        """List the jobs of this process, newest first."""
        return json_of(JobsAnswer(jobs=[job.answer() for job in change.writer.jobs.newest()]))

    @app.get("/v1/jobs/{job_id}", response_model=JobAnswer, responses=errors(403, 404, 422))
    async def get_job(job_id: str) -> Response:
        """Say how far a job is, or how it ended."""
        return json_of(change.writer.jobs.get(job_id).answer())


def _noted(request: Request, service: Service) -> Service:
    notes_of(request.scope).index = service.name
    return service
