"""Why a job failed, as the client may know it."""

import logging
from pathlib import Path

from ...index.errors import (
    DatasetError,
    DuplicateDocumentError,
    EncoderMismatchError,
    IndexLockedError,
    MissingDependencyError,
    RepresentationError,
    StorageError,
)
from ..errors import RefusedError

logger = logging.getLogger(__name__)


def failure_of(error: BaseException, job_id: str, folder: Path | None) -> RefusedError:
    """Return what is told of an error; what is more is logged under the job's id.

    Parameters
    ----------
    error : BaseException
    job_id : str
    folder : Path or None
        Of the index, which messages name and clients do not know.
    """
    if isinstance(error, RefusedError):
        return error
    message = str(error) if folder is None else str(error).replace(f"{folder}: ", "").replace(f"{folder}, ", "")
    match error:
        case DuplicateDocumentError():
            message = message.partition("; give each")[0]
            return RefusedError(409, "conflict", f"{message}; send replace: true to replace documents")
        case FileExistsError():
            return RefusedError(409, "conflict", "there is an index of this name already")
        case IndexLockedError():
            again = {"Retry-After": "5"}
            return RefusedError(409, "conflict", "another process is writing to the index: try again later", again)
        case EncoderMismatchError():
            return RefusedError(409, "encoder_mismatch", message)
        case MissingDependencyError():
            return RefusedError(422, "invalid_request", message)
        case StorageError():
            logger.error("job %s: %s", job_id, error)
            state = "the commit is published, but may not survive a power cut" if error.committed else "nothing of it is there"
            message = f"the system refused to write: {state}; the server's log has it as job {job_id}"
            return RefusedError(507, "storage", message)
        case DatasetError() | RepresentationError() | ValueError() | TypeError():
            return RefusedError(422, "invalid_request", message)
    logger.error("job %s failed", job_id, exc_info=error)
    return RefusedError(500, "internal", f"internal error; the server's log has it as job {job_id}")
