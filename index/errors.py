"""The one error tree.

::

    LexmaxError
      IndexNotFoundError      no manifest at the path
      IndexFormatError        foreign, newer, truncated or damaged file: path, expected, found
      IndexLockedError        another writer holds the index
      DuplicateDocumentError  a doc_id is already live
      EncoderMismatchError    the index was made by another encoder or with other settings
      RepresentationError     this searcher, index or encoder cannot take what it was given
      DatasetError            malformed corpus, queries or qrels: file and line
      StorageError            the system refused: space, memory, descriptors, a file; says whether the commit is published
      MissingDependencyError  an optional package is not installed
      FilterError             a filter is malformed, does not fit the fields, or would take long; also a ValueError

Wrong arguments raise ValueError or TypeError. Messages say what, where and what to do.
"""

from collections.abc import Sequence
from pathlib import Path


class LexmaxError(Exception):
    """Base of every error that lexmax raises about data, files and indexes."""


class IndexNotFoundError(LexmaxError):
    """There is no index at the path."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"no index at {path}: build one with `lexmax build CORPUS --out {path}`")
        self.path = Path(path)


class IndexFormatError(LexmaxError):
    """A file of the index is foreign, from a newer lexmax, truncated or damaged."""

    def __init__(self, path: Path | str, *, expected: object, found: object, advice: str = "") -> None:
        super().__init__(f"{path}: expected {expected}, found {found}" + (f"; {advice}" if advice else ""))
        self.path, self.expected, self.found = Path(path), expected, found


class IndexLockedError(LexmaxError):
    """Another writer holds the index."""


class DuplicateDocumentError(LexmaxError):
    """Documents are already in the index; ``doc_ids`` holds up to five of them."""

    def __init__(self, doc_ids: Sequence[str], n_duplicates: int, *, where: str = "") -> None:
        shown = ", ".join(repr(doc_id) for doc_id in doc_ids[:5])
        more = f" and {n_duplicates - 5} more" if n_duplicates > 5 else ""
        hint = "give each document its own id, or replace (replace=True, `lexmax add --replace`)"
        super().__init__(f"{where}already in the index: {shown}{more}; {hint}")
        self.doc_ids, self.n_duplicates = list(doc_ids[:5]), n_duplicates


class EncoderMismatchError(LexmaxError):
    """The index was made by another encoder or with other settings; both fingerprints are named."""

    def __init__(self, *, index: str, encoder: str, hint: str = "") -> None:
        super().__init__(
            f"the index was made by encoder {index}, but this encoder is {encoder}"
            + (f": {hint}" if hint else "; use the model and settings that `lexmax info` shows")
        )
        self.index, self.encoder = index, encoder


class RepresentationError(LexmaxError):
    """This searcher, index or encoder cannot take what it was given."""


class DatasetError(LexmaxError):
    """Malformed corpus, queries or qrels; says file and line."""

    def __init__(self, message: str, *, path: Path | str | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}, line {line}: " if line is not None else f"{path}: "
        super().__init__(where + message)
        self.path, self.line = None if path is None else Path(path), line


class StorageError(LexmaxError):
    """The system refused a read or write, memory, descriptors, threads; says what and where.

    Attributes
    ----------
    committed : bool
        False: the index is as its last commit left it. True: the commit is published and readers see it, but the system did
        not confirm that it would survive a power cut.
    """

    def __init__(self, message: str, *, committed: bool = False) -> None:
        super().__init__(message)
        self.committed = committed


class ShardError(LexmaxError):
    """A shard could not be built, or does not answer; says which, and why."""


class FilterError(LexmaxError, ValueError):
    """A filter is malformed, does not fit the types of the fields, or would take long."""


class MissingDependencyError(LexmaxError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, what: str) -> None:
        super().__init__(f"{what} needs {package}: install it with `pip install 'lexmax[{extra}]'`")
        self.package, self.extra = package, extra
