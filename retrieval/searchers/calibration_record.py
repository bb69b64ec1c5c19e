"""What a calibration measured of a token field, and which settings of a search follow from it.

A record holds for the field that it was measured on. Once documents came or went it is *stale*: small changes are warned about,
large ones and a new codec are refused.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

from ...index.multivector.field import TokenField

MARGIN = 0.5
"""Settings may miss this share of what a target allows, less a standard error: other queries are harder than those measured."""
MAX_CHANGE = 0.1
"""Share of documents or tokens that may have come or gone before a record is refused."""


class CalibrationWarning(UserWarning):
    """A ``target_recall`` was measured before the newest documents were added."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Settings that were tried.

    Attributes
    ----------
    options : dict of str to int
        Numbers of centroids and documents, see `centroid.CentroidOptions`.
    recall : float
        Mean share of the k best documents that was found.
    error : float
        Standard error of the mean over queries.
    cpu_ms : float
        Median time of a query on one core.
    """

    options: dict[str, Any]
    recall: float
    error: float
    cpu_ms: float

    @property
    def certain(self) -> float:
        """Recall, less its standard error."""
        return self.recall - self.error


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The record of a calibration.

    Attributes
    ----------
    k : int
        Answers that recall was measured of; deeper searches are not covered.
    generation : int
        The commit that was measured.
    codec : str
        Name of the codec's file then.
    n_docs, n_tokens : int
        Live documents and their tokens then.
    n_queries : int
    queries : {"given", "passages", "tokens"}
        Queries of the caller; passages of documents, encoded as queries; documents' tokens with noise.
    oracle : str
        What was taken for the truth: "exact tokens", those stored at 8 bits, or the fingerprint of the encoder that encoded
        documents again.
    efforts : tuple of Effort
        From cheap to expensive.
    """

    k: int
    generation: int
    codec: str
    n_docs: int
    n_tokens: int
    n_queries: int
    queries: str
    oracle: str
    efforts: tuple[Effort, ...]

    @classmethod
    def of(cls, field: TokenField) -> Calibration | None:
        """Read the record of a field; None when it was not calibrated, or by a lexmax that measured something else."""
        stored = field.calibration
        if stored is None:
            return None
        try:
            return cls(**{**stored, "efforts": tuple(Effort(**each) for each in stored["efforts"])})
        except (KeyError, TypeError):
            return None

    def to_json(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes, and `of` reads."""
        return {**asdict(self), "efforts": [asdict(each) for each in self.efforts]}

    def is_void(self, field: TokenField) -> bool:
        """Whether the field has changed so much that the record says nothing of it."""
        pairs = ((self.n_docs, field.n_docs), (self.n_tokens, field.n_tokens))
        return field.codec_name != self.codec or any(abs(now - then) > MAX_CHANGE * then for then, now in pairs)

    def choose(self, target: float) -> Effort | None:
        """Return the cheapest settings that reach the target by a margin, else the best that reach it at all, else None."""
        safe = 1 - (1 - target) * MARGIN
        enough = [each for each in self.efforts if each.certain >= safe]
        if enough:
            return min(enough, key=lambda each: each.cpu_ms)
        return self.best if self.best.certain >= target else None

    @property
    def best(self) -> Effort:
        """The settings of the highest recall."""
        return max(self.efforts, key=lambda each: each.certain)


def calibrated_options(field: TokenField, target: float, k: int | None) -> dict[str, Any]:
    """Numbers of centroids and documents that reach a recall on a field.

    Parameters
    ----------
    field : TokenField
    target : float
    k : int or None
        Answers of the search; None: unknown.

    Raises
    ------
    ValueError
        The field was not calibrated, or is another one now, ``k`` is larger than the calibration's, or no settings reached
        the recall. The message has the command that mends it.

    Warns
    -----
    CalibrationWarning
        A few documents came or went since.
    """
    where, record = f"{field.path}, field {field.name}", Calibration.of(field)
    command = f"lexmax calibrate {field.path} --field {field.name}"
    if record is None:
        raise ValueError(f"{where}: not calibrated: run `{command}` once, or leave out target_recall")
    if k is not None and k > record.k:
        raise ValueError(f"{where}: calibrated for up to {record.k} answers, not {k}: run `{command} -k {k}`")
    changes = field.changes()
    if changes is not None:
        message = f"{where}: calibrated at commit {record.generation}; since then {changes}: run `{command}` again"
        if record.is_void(field):
            raise ValueError(message)
        warnings.warn(message, CalibrationWarning, stacklevel=2)
    chosen = record.choose(target)
    if chosen is None:
        raise ValueError(f"{where}: {_unreachable(field, record, target)}")
    return chosen.options


def _unreachable(field: TokenField, record: Calibration, target: float) -> str:
    best = record.best
    reached = (
        f"no settings reach recall@{record.k} of {target}: the best measured is {best.recall:.3f} "
        f"(standard error {best.error:.3f}, {record.n_queries} queries); "
    )
    if field.config.exact:
        return f"{reached}lower the target, search exhaustively, or calibrate with more queries"
    return (
        f"{reached}codes of {field.config.nbits} bits without exact tokens lose the rest: add a field with exact=true or more "
        f"nbits, as in `lexmax field add {field.path} {field.name}-exact=MODEL,nbits={field.config.nbits},exact=true`"
    )
