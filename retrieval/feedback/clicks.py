"""What users saw and clicked: one impression, and all that is known of a query, counted by document and rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ...index.arguments import count_of, texts_of
from ...index.metadata import check_text

MAX_QUERY_CHARS = 20_000
MAX_SHOWN = 1000
MAX_RANK = 10_000
MAX_ID_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class Impression:
    """What one user saw and clicked.

    Attributes
    ----------
    query : str
        Up to 20,000 characters; spaces around it are removed.
    shown : sequence of str
        doc_ids of up to 1,000 documents in the order in which they were shown, none twice.
    clicked : sequence of str
        Those of them that were clicked.
    first_rank : int
        Rank of the first one, from 1: of a second page of ten it is 11.

    Raises
    ------
    TypeError, ValueError
        Another type, something empty, too long or there twice, or a click on what was not shown.
    """

    query: str
    shown: Sequence[str]
    clicked: Sequence[str] = ()
    first_rank: int = 1

    def __post_init__(self) -> None:
        shown, clicked = texts_of(self.shown, "shown"), texts_of(self.clicked, "clicked")
        if not isinstance(self.query, str):
            raise TypeError(f"a query is a string, not {type(self.query).__name__}")
        if not self.query.strip() or len(self.query) > MAX_QUERY_CHARS:
            allowed = f"1 to {MAX_QUERY_CHARS:,} beside spaces"
            raise ValueError(f"the query has {len(self.query):,} characters: it must have {allowed}")
        if not 0 < len(shown) <= MAX_SHOWN:
            raise ValueError(f"{len(shown):,} documents shown: there must be 1 to {MAX_SHOWN:,}")
        for text in (self.query, *shown):
            check_text(text)
        for what, doc_ids in (("shown", shown), ("clicked", clicked)):
            if len(set(doc_ids)) < len(doc_ids):
                raise ValueError(f"a document is {what} twice")
        if wrong := [doc_id for doc_id in shown if not 0 < len(doc_id.encode()) <= MAX_ID_BYTES]:
            raise ValueError(f"doc_id {wrong[0][:40]!r} must have 1 to {MAX_ID_BYTES} bytes")
        if unseen := set(clicked) - set(shown):
            raise ValueError(f"a click on {min(unseen)[:100]!r}, which was not shown")
        if count_of(self.first_rank, "first_rank") + len(shown) - 1 > MAX_RANK:
            raise ValueError(f"first_rank is {self.first_rank:,}: ranks end at {MAX_RANK:,}")


Place = tuple[str, int]
"""doc_id and rank."""


@dataclass
class LoggedQuery:
    """All that a log knows of one query.

    Attributes
    ----------
    query : str
    n_times : int
        How often it was asked.
    counts : dict of (str, int) to (int, int)
        Document and rank -> how often it was shown there, and clicked.
    """

    query: str
    n_times: int = 0
    counts: dict[Place, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, impression: Impression) -> LoggedQuery:
        """Return the record of one impression."""
        clicked = set(impression.clicked)
        ranked = enumerate(impression.shown, impression.first_rank)
        counts = {(doc_id, rank): (1, int(doc_id in clicked)) for rank, doc_id in ranked}
        return cls(impression.query.strip(), 1, counts)

    def add(self, other: LoggedQuery) -> None:
        """Add what another record says of the same query."""
        self.n_times += other.n_times
        for place, (shown, clicked) in other.counts.items():
            before = self.counts.get(place, (0, 0))
            self.counts[place] = (before[0] + shown, before[1] + clicked)


def merge(queries: dict[str, LoggedQuery], records: Iterable[LoggedQuery]) -> None:
    """Add records to those of their queries."""
    for record in records:
        queries.setdefault(record.query, LoggedQuery(record.query)).add(record)
