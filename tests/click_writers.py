"""Processes that write to a click log; in a module of their own, since a process that is spawned imports them by name."""

from lexmax.retrieval.feedback.clicks import Impression
from lexmax.retrieval.feedback.log import ClickLog


def write_many(path, first):
    """Log a hundred impressions, with compactions between them."""
    log = ClickLog(path)
    for number in range(100):
        log.add([Impression(query=f"q{number}", shown=[f"d{first}"], clicked=[f"d{first}"])])
        if number % 20 == 0:
            log.compact()


def write_and_tell(path, pipe):
    """Log impressions and tell of each that it is logged, until killed."""
    log = ClickLog(path)
    for number in range(100_000):
        log.add([Impression(query=f"q{number}", shown=["d"])])
        pipe.send(number)
