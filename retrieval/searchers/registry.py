"""The table of representations: which searcher answers for a field, and what options it takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib import import_module
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast, get_args, get_type_hints, runtime_checkable

from ...index.arrays import Floats, Int32s, Mask
from ...index.errors import RepresentationError
from ...index.fields import Field
from ...index.nearest import did_you_mean
from ...index.representations import Vectors
from ..hits import Hits
from .explanation import FieldExplanation

if TYPE_CHECKING:
    from .early_reads import EarlyReads

SEARCHERS = {
    "sparse": ("sparse", "SparseSearcher"),
    "tokens": ("tokens", "TokenSearcher"),
    "sparse-tokens": ("sparse_tokens", "SparseTokenSearcher"),
    "dense": ("dense", "DenseSearcher"),
    "fde": ("fde", "FdeSearcher"),
    "nets": ("nets", "NetSearcher"),
}
"""Representation -> module of this folder and class, imported when first needed."""
ENCODERS = {"fde": "tokens"}
"""Representation of a field -> what its encoder makes, where that is another."""
OptionsT = TypeVar("OptionsT")
_NAMES = {int: "a whole number", float: "a number", str: "a string", NoneType: "none"}


class FieldSearcher(Protocol):
    """Searches, scores and explains with one field of one snapshot; safe to use from many threads.

    Made by `field_searcher`. ``queries`` of all methods but `vectors` are what `vectors` returns, and ``options`` an object of
    ``options_type``, made by `make_options`; None: the defaults.
    """

    options_type: type[Any]
    """Frozen dataclass of keywords, all with a default; ``algorithm="exhaustive"`` is the oracle."""

    @property
    def field(self) -> Field[Any]:
        """What is searched."""
        ...

    @property
    def encoder(self) -> Any:
        """Encoder of the field, or None: then explanations name no surface terms and no tokens."""
        ...

    def vectors(self, queries: object) -> Vectors:
        """Bring encoded queries, or what else the representation accepts, into the form that the other methods take."""
        ...

    def search(
        self, queries: Any, k: int, *, allowed: Sequence[Mask | None] | None = None, options: Any = None, n_threads: int = 1
    ) -> Hits:
        """Return the k best documents of each query.

        Parameters
        ----------
        queries : batch of vectors
        k : int
            At least 1.
        allowed : list of masks, one per segment, or None
            As `Snapshot.masks` gives them; None: all live documents.
        options : options object or None
        n_threads : int
            Queries answered in parallel.
        """
        ...

    def score(
        self, queries: Any, doc_nums: Sequence[Int32s], *, options: Any = None, n_threads: int = 1
    ) -> list[Floats]:  # fmt: skip
        """Score given documents: the numbers that `search` gives them.

        Parameters
        ----------
        queries : batch of vectors
        doc_nums : sequence of (n,) int32, one per query
            In any order, repeated or not; deleted documents are scored too.
        options, n_threads
            As in `search`.

        Returns
        -------
        list of (n,) float32
            0 where nothing matches, `hits.NO_SCORE` where the document or the query has no tokens.
        """
        ...

    def explain(
        self, queries: Any, number: int, query_text: str, doc_num: int, document_text: str
    ) -> FieldExplanation:  # fmt: skip
        """Explain the field's score of one document for query ``number`` of the batch."""
        ...

    def warm(self) -> None:
        """Load or compile every kernel that a query can need."""
        ...


Announce = Callable[[int, Int32s], None]
"""Told, while a search runs, the number of a query and documents that it is likely to find, best first."""


@runtime_checkable
class AnnouncingSearcher(Protocol):
    """A `FieldSearcher` whose ``search`` takes ``announce``, an `Announce`, and calls it from any thread."""

    announces: Literal[True]


@runtime_checkable
class EarlyReader(Protocol):
    """A `FieldSearcher` whose ``score`` takes ``early``: reads that begin before it is called."""

    def early(self, n_queries: int) -> EarlyReads | None:
        """Reads for a batch of queries, which ``score`` or ``close`` ends; None where nothing is read from disk."""
        ...


def searcher_type(representation: str) -> type[Any]:
    """Return the `FieldSearcher` class of a representation; raises RepresentationError for an unknown one."""
    if representation not in SEARCHERS:
        raise RepresentationError(f"no searcher for {representation!r} fields: there are {', '.join(SEARCHERS)}")
    module, name = SEARCHERS[representation]
    return cast("type[Any]", getattr(import_module(f".{module}", __package__), name))


def field_searcher(field: Field[Any], encoder: Any = None) -> FieldSearcher:
    """Make the searcher of a field.

    Parameters
    ----------
    field : Field
    encoder : Encoder or None
        Of the field's representation; None: queries come as vectors.

    Raises
    ------
    RepresentationError
        The encoder makes another representation than the field holds.
    """
    if encoder is not None and encoder.representation != ENCODERS.get(field.representation, field.representation):
        raise RepresentationError(
            f"{field.path}, field {field.name}: holds {field.representation} vectors, and encoder {encoder.kind} makes "
            f"{encoder.representation} ones"
        )
    return cast(FieldSearcher, searcher_type(field.representation)(field, encoder))


def make_options(searcher: FieldSearcher | Field[Any] | str, given: object = None) -> Any:
    """Make the options object of a searcher, field or representation.

    Parameters
    ----------
    searcher : FieldSearcher, Field or str
    given : mapping of option name -> value, options object or None
        None: the defaults. Numbers may be strings, as a command line has them.

    Raises
    ------
    ValueError
        An unknown option, which is named with those that there are, a value out of range, or, of a searcher, an option that its
        field does not have.
    TypeError
        A value or an options object of another type.
    """
    if isinstance(searcher, Field):
        searcher = searcher.representation
    kind: Any = searcher_type(searcher).options_type if isinstance(searcher, str) else searcher.options_type
    made = kind() if given is None else made_options(kind, given, "options")
    check = getattr(searcher, "check", None)
    if check is not None:
        check(made)
    return made


def made_options(kind: type[OptionsT], given: object, what: str) -> OptionsT:
    """Make an options object of a mapping; errors are those of `make_options`, and call it ``what``."""
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must be a {kind.__name__} or a mapping of option names, not {type(given).__name__}")
    types: Mapping[str, tuple[type, ...]] = _types_of(cast(Any, kind))
    unknown = [name for name in given if name not in types]
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}: there are {', '.join(types)}{did_you_mean(str(unknown[0]), types)}")
    return kind(**{name: _converted(name, value, types[name]) for name, value in given.items()})


@cache
def _types_of(kind: Any) -> Mapping[str, tuple[type, ...]]:
    """Types that each option takes, by name."""
    hints = get_type_hints(kind)
    return {field.name: get_args(hints[field.name]) or (hints[field.name],) for field in fields(kind)}


def _converted(name: str, value: object, kinds: tuple[type, ...]) -> object:
    """Return the value as one of the types, a string as the number that it spells."""
    if isinstance(value, str) and str not in kinds:
        if value.lower() == "none" and NoneType in kinds:
            return None
        try:
            return int(value) if int in kinds else float(value)
        except ValueError:
            pass
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if float in kinds and number and abs(cast(float, value)) <= sys.float_info.max:
        return float(cast(float, value))
    if int in kinds and number and abs(cast(float, value)) < 1 << 63 and value == int(cast(float, value)):
        return int(cast(float, value))
    if (value is None and NoneType in kinds) or (isinstance(value, str) and str in kinds):
        return value
    raise TypeError(f"option {name} is {value!r}: it must be {' or '.join(_NAMES[kind] for kind in kinds)}")
