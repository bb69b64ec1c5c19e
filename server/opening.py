"""Opens the indexes of a server: with the options of the command line, and each encoder once for all of them."""

import argparse
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..retrieval.commands.options import open_retriever
from ..retrieval.encoders.base import Encoder
from ..retrieval.feedback.log import ClickLog
from ..retrieval.shards.manifest import fields_of, is_index
from .indexes import Opens
from .writing.writer import Home

if TYPE_CHECKING:
    from ..retrieval.retriever import Retriever

ONE_INDEX: Mapping[str, Any] = {"search": None, "option": [], "target_recall": None, "exhaustive": False, "model": []}
"""Options that name fields of one index, and what they are without it."""


class Opener:
    """Opens indexes by name, one after the other, in whatever threads ask.

    Parameters
    ----------
    options : argparse.Namespace
        Those of ``serve``.
    folders : mapping of str to Path
    max_log_bytes : int
        Of each click log.

    Raises
    ------
    ValueError
        Options that name fields, with several indexes.
    """

    def __init__(self, options: argparse.Namespace, folders: Mapping[str, Path], max_log_bytes: int) -> None:
        self._options, self._max_log_bytes = options, max_log_bytes
        self._lock = threading.Lock()
        self._encoders: dict[str, Encoder] = {}  # by fingerprint
        self._several = len(folders) > 1
        given = [name for name in ONE_INDEX if getattr(options, name)]
        if self._several and given:
            flag = "--" + given[0].replace("_", "-")
            raise ValueError(f"{flag} is for a server of one index; requests choose their search and its options")
        self._clicks = {name: self._log(name) for name in folders}
        self.opens: Opens = {name: partial(self.open, name, folder) for name, folder in folders.items()}

    def open(self, name: str, folder: Path) -> "Retriever":
        """Open one; encoders that another index has loaded are used again."""
        with self._lock:
            records, _ = fields_of(folder)
            known = {
                field: self._encoders[record.encoder.fingerprint]
                for field, record in records.items()
                if record.complete and record.encoder.fingerprint in self._encoders
            }
            own = {} if name in self.opens else ONE_INDEX  # an index that was made later has other fields
            options = argparse.Namespace(**{**vars(self._options), **own, "index": str(folder)})
            retriever = open_retriever(options, self._clicks.get(name), known)
            for encoder in retriever.encoders().values():
                self._encoders.setdefault(encoder.fingerprint, encoder)
            return retriever

    def _log(self, name: str) -> ClickLog | None:
        """The click log of an index: the file, or of several indexes one in the folder, that ``--feedback`` names."""
        if not self._options.feedback:
            return None
        place = Path(self._options.feedback)
        if self._several:
            place.mkdir(parents=True, exist_ok=True)
            place = place / f"{name}.clicks"
        return ClickLog(place, create=True, max_bytes=self._max_log_bytes)


def home_of(arguments: Sequence[str], opener: Opener) -> Home | None:
    """Return where new indexes are made: in the one folder of indexes that a command line names, which is no index itself."""
    folder = Path(arguments[0])
    if len(arguments) != 1 or not folder.is_dir() or is_index(folder):
        return None
    return Home(folder, opener.open)
