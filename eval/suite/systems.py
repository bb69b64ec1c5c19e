"""What a suite compares: search expressions over the fields of one index per collection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...retrieval.fields import FieldEncoder, check_search, field_encoders
from ...retrieval.pipelines.expression import parse


@dataclass(frozen=True, kw_only=True)
class System:
    """A system to compare.

    Attributes
    ----------
    name : str
    search : str
        A search expression over the suite's fields.
    """

    name: str
    search: str


def parse_searches(texts: Iterable[str], fields: Sequence[str]) -> list[System]:
    """Read ``[NAME=]EXPRESSION`` each; the name is the expression where none is given.

    Raises
    ------
    ValueError
        A malformed expression, one that names no field, or a name that comes twice.
    """
    systems: list[System] = []
    for text in texts:
        name, equals, expression = text.partition("=")
        if not equals:
            name, expression = "", text
        check_search(expression.strip(), fields)
        systems.append(System(name=name.strip() or str(parse(expression)), search=expression.strip()))
    return systems


def load_fields(texts: Sequence[str], *, device: str = "cpu") -> dict[str, FieldEncoder]:
    """Load the encoders of the suite's fields; their weights are looked at, so that what is broken fails now."""
    loaded = field_encoders(texts, device=device)
    for each in loaded.values():
        _ = each.encoder.fingerprint
    return loaded


def checked(systems: Sequence[System], fields: Mapping[str, FieldEncoder]) -> list[System]:
    """Raise ValueError where there is nothing to compare, a name comes twice, or a field is not used."""
    if not systems:
        raise ValueError("nothing to compare: name searches, as in --search bm25")
    names = [system.name for system in systems]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"two systems are called {twice[0]!r}: name one, as in NAME=EXPRESSION")
    used = {name for system in systems for name in parse(system.search).fields}
    idle = [name for name in fields if name not in used]
    if idle:
        raise ValueError(f"no search uses the field {idle[0]!r}")
    return list(systems)
