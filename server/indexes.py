"""The indexes of a server by name, and the names that they get from their folders."""

import asyncio
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..retrieval.shards.manifest import fields_of, is_index
from .errors import RefusedError, unknown
from .limits import Limits
from .searching.admission import Admission
from .searching.service import CLOSE_S, Service

if TYPE_CHECKING:
    from ..retrieval.retriever import Retriever

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Opens = Mapping[str, "Callable[[], Retriever]"]


class Indexes:
    """Services by name; addresses without a name mean the only one.

    Parameters
    ----------
    opens : mapping of str to callable
        Name -> what opens its retriever, in a thread.
    limits : Limits
        Of all of them together.
    """

    def __init__(self, opens: Opens, limits: Limits) -> None:
        self.admission = Admission(limits.max_waiting)
        self._services = {name: Service(open_, limits, self.admission, name) for name, open_ in opens.items()}
        self._limits = limits
        self._fresh: dict[str, asyncio.Task[None]] = {}
        self._every_s = math.inf
        self._told: Callable[[str, int], None] = lambda name, n_queries: None

    def __iter__(self) -> Iterator[tuple[str, Service]]:
        return iter(list(self._services.items()))

    @property
    def default(self) -> str | None:
        """Name of the only index; None where there are several, or none."""
        return next(iter(self._services)) if len(self._services) == 1 else None

    def service(self, name: str | None = None) -> Service:
        """Return an index by name, or the only one.

        Raises
        ------
        RefusedError
            404: there is none of this name, or there is not just one.
        """
        chosen = self.default if name is None else name
        if chosen in self._services:
            return self._services[chosen]
        if name is not None and self._services:
            raise RefusedError(404, "not_found", unknown("index", name, list(self._services)))
        names = ", ".join(self._services)
        message = f"this server has not one index but {names}: name it, as in /v1/indexes/NAME/search"
        if not names:
            message = "this server has no index yet: POST /v1/indexes makes one"
        raise RefusedError(404, "not_found", message)

    def fields(self, name: str) -> tuple[str, ...]:
        """Names of the fields of an index; none where it is not open."""
        service = self._services.get(name)
        return service.retriever.fields if service is not None and service.ready else ()

    def tell_batches(self, told: Callable[[str, int], None]) -> None:
        """Call ``told`` with the name of an index and the number of queries whenever some are encoded together."""
        self._told = told
        for name, service in self._services.items():
            service.on_batch = partial(told, name)

    def check_ready(self) -> None:
        """Raise RefusedError, 503, until every index is open and warm and once the server shuts down."""
        for service in self._services.values():
            if service.required:
                service.check_ready()

    @property
    def ready(self) -> bool:
        """Whether every index is open and warm."""
        return all(service.ready for service in self._services.values() if service.required)

    @property
    def failure(self) -> Exception | None:
        """Why an index that the server began with could not be opened."""
        return next((each.failure for each in self._services.values() if each.required and each.failure is not None), None)

    @property
    def busy(self) -> bool:
        """Whether a thread is at work, be it for a request that is gone."""
        return any(service.busy for service in self._services.values())

    def keep_fresh(self, every_s: float) -> None:
        """Open every index and look for new commits from now on, in tasks of this event loop."""
        self._every_s = every_s
        for name, service in self._services.items():
            self._fresh[name] = asyncio.create_task(service.keep_fresh(every_s))

    def add(self, name: str, open_: "Callable[[], Retriever]") -> Service:
        """Serve one more index, which is opened from now on."""
        service = Service(open_, self._limits, self.admission, name, required=False)
        service.on_batch = partial(self._told, name)
        self._services[name] = service
        self._fresh[name] = asyncio.create_task(service.keep_fresh(self._every_s))
        return service

    def remove(self, name: str) -> None:
        """Serve an index no more that could not be opened."""
        self._fresh.pop(name).cancel()
        del self._services[name]

    async def close(self, within_s: float = CLOSE_S) -> None:
        """Let what runs in threads finish, then close every index, as `Service.close` does."""
        for task in self._fresh.values():
            task.cancel()
        await asyncio.gather(*(service.close(within_s) for service in self._services.values()))


def named_folders(arguments: Sequence[str], *, may_be_empty: bool = False) -> dict[str, Path]:
    """Return the indexes that a command line names: ``IDX``, ``NAME=IDX``, or a folder of indexes, which may be empty if so.

    Raises
    ------
    IndexNotFoundError, IndexFormatError
        Neither an index nor a folder of indexes, or a damaged one.
    ValueError
        Two of one name, or a name that no address can hold.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        name, equals, place = argument.partition("=")
        named = bool(equals) and NAME.fullmatch(name) is not None and not Path(argument).exists()
        folder = Path(place if named else argument)
        inner = [] if named else folder_of_indexes(folder)
        if may_be_empty and not named and not inner and folder.is_dir() and not any(folder.iterdir()):
            continue
        if not inner:
            fields_of(folder)  # where no index is, that is all there is to tell
        for each in inner or [folder]:
            known = name if named else each.resolve().name
            if not NAME.fullmatch(known):
                raise ValueError(f"{each}: an index is served by a name of letters, digits, ., _ and -: write NAME={each}")
            if known in found:
                raise ValueError(f"two indexes are called {known}, {found[known]} and {each}: name one, as in other={each}")
            found[known] = each
    return found


def folder_of_indexes(folder: Path) -> list[Path]:
    """Return the indexes in a folder that is none itself; none where it holds none."""
    if not folder.is_dir() or is_index(folder):
        return []
    return sorted(each for each in folder.iterdir() if is_index(each))
