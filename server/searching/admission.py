"""Which requests are taken: bounded in queries that wait, and in whether they can be answered in time."""

import contextlib
import time
from collections.abc import Iterator

from ..errors import RefusedError

SMOOTHING = 8  # answers that the pace is an average of


class Admission:
    """Counts the queries of all indexes of a server that are taken and not answered yet, in one event loop.

    Attributes
    ----------
    n_waiting : int
    pace_s : float
        Seconds from one answered query to the next, of late.
    """

    def __init__(self, max_waiting: int) -> None:
        self.n_waiting, self.pace_s = 0, 0.0
        self._max_waiting = max_waiting
        self._answered_at = 0.0

    @contextlib.contextmanager
    def admitted(self, n_queries: int, seconds: float) -> Iterator[None]:
        """Hold a place for every query from here to its answer; 503 when there are too few, or too many for the time given.

        Work on a request that is too late in the end is lost to those that were not, so it is refused at once.
        """
        wait_s = self.n_waiting * self.pace_s
        if self.n_waiting + n_queries > self._max_waiting or wait_s > seconds:
            message = f"{self.n_waiting} queries are waiting already, some {wait_s:.1f} s of work: try again later"
            raise RefusedError(503, "overloaded", message, {"Retry-After": str(max(1, round(wait_s - seconds)))})
        started = time.perf_counter()
        self.n_waiting += n_queries
        try:
            yield
            now = time.perf_counter()
            took_s = (now - max(started, self._answered_at)) / n_queries
            self.pace_s += (took_s - self.pace_s) / SMOOTHING
            self._answered_at = now
        finally:
            self.n_waiting -= n_queries
