"""Are the differences between systems more than chance: paired tests over queries, corrected for their number.

Each test is the paired randomisation of `measures.paired_randomisation` (Smucker, Allan & Carterette, CIKM 2007). A mean over
collections is tested by the same draws of signs: each query counts with 1 / queries of its collection, so that the sum of
differences is that of the collections' means. The p-values of several systems against one are corrected after Holm
(Scandinavian Journal of Statistics 6, 1979), which bounds the chance of any false claim among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .measures import paired_randomisation

MEAN = "mean"

PerQuery = Mapping[str, Mapping[str, float]]
"""collection -> query_id -> value."""


def compare_with_first(systems: Mapping[str, PerQuery], *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Test every system against the first one.

    Parameters
    ----------
    systems : mapping of str to mapping
        System -> collection -> query_id -> value, all of the same queries.
    seed : int
        Of the draws.

    Returns
    -------
    dict of str to dict of str to float
        System -> collection, and ``"mean"`` -> p-value, corrected for the number of systems in each column; of all systems
        but the first.

    Raises
    ------
    ValueError
        The systems differ in queries, or there are none.
    """
    names = list(systems)
    if not names or not all(systems.values()):
        raise ValueError("a comparison needs systems with at least one collection each")
    columns = {name: {**per_query, MEAN: _evenly(per_query)} for name, per_query in systems.items()}
    first = columns[names[0]]
    corrected: dict[str, dict[str, float]] = {name: {} for name in names[1:]}
    for column, baseline in first.items():
        raw = [paired_randomisation(columns[name].get(column, {}), baseline, seed=seed) for name in names[1:]]
        for name, value in zip(names[1:], holm(raw), strict=True):
            corrected[name][column] = value
    return corrected


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values of several tests, in the order given: the smallest counts for all, the next for one less, and so on."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for n_smaller, number in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - n_smaller) * p_values[number]))
        corrected[number] = highest
    return corrected


def _evenly(per_query: PerQuery) -> dict[str, float]:
    """All queries of all collections, each with its share of the mean over collections."""
    return {
        f"{collection}\t{query_id}": value / (len(values) * len(per_query))
        for collection, values in per_query.items()
        for query_id, value in values.items()
    }
