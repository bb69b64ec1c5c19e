"""A backend whose reads go wrong on purpose."""

import errno

import numpy as np

from lexmax.index.reading.sessions import PoolSession, Sessions


class FaultySession(PoolSession):
    """Reads by pread, and then does what ``fault`` says to numbers, results and memory.

    ``fault(session, reads, numbers, results)`` returns numbers and results in the place of those that came.
    """

    def __init__(self, fault):
        super().__init__()
        self.fault, self.sent = fault, {}

    def exchange(self, descriptor, reads, n_wait):
        for number, address, length in zip(reads.numbers, reads.addresses, reads.lengths, strict=True):
            self.sent[int(number)] = (int(address) - self.arena.ctypes.data, int(length))
        return self.fault(self, *super().exchange(descriptor, reads, n_wait))

    def erase(self, number, kept=0):
        """Forget what a read brought, after so many bytes."""
        at, length = self.sent[int(number)]
        self.arena[at + kept : at + length] = 0xEE


def faulty(fault):
    return Sessions(lambda: FaultySession(fault))


class Faults:
    """One function for each thing that disks and kernels do; those that end well, and those that do not."""

    @staticmethod
    def every_read_is_short(session, numbers, results):
        results = results.copy()
        for i, number in enumerate(numbers):
            if results[i] > 1000:
                results[i] = 1000 + results[i] % 7
                session.erase(number, results[i])
        return numbers, results

    @staticmethod
    def often_interrupted(session, numbers, results):
        results = results.copy()
        for i, number in enumerate(numbers):
            session.calls = getattr(session, "calls", 0) + 1
            if session.calls % 3:
                results[i] = -(errno.EINTR if session.calls % 2 else errno.EAGAIN)
                session.erase(number)
        return numbers, results

    @staticmethod
    def each_fails_once(session, numbers, results):
        results, seen = results.copy(), session.__dict__.setdefault("seen", set())
        for i, number in enumerate(numbers.tolist()):
            if number not in seen:
                seen.add(number)
                results[i] = -errno.EIO
                session.erase(number)
        return numbers, results

    @staticmethod
    def in_another_order(session, numbers, results):
        order = np.random.default_rng(len(numbers)).permutation(len(numbers))
        return numbers[order], results[order]

    @staticmethod
    def told_twice(session, numbers, results):
        before = session.__dict__.get("before", (numbers[:0], results[:0]))
        session.before = numbers, results
        return np.concatenate([numbers, before[0], numbers]), np.concatenate([results, before[1], results])

    @staticmethod
    def one_is_never_told(session, numbers, results):
        told = numbers != session.__dict__.setdefault("lost", numbers[0]) if len(numbers) else slice(None)
        return numbers[told], results[told]

    ends_well = (every_read_is_short, often_interrupted, each_fails_once, in_another_order, told_twice)

    @staticmethod
    def always_fails(session, numbers, results):
        return numbers, np.full_like(results, -errno.EIO)

    @staticmethod
    def the_file_ends(session, numbers, results):
        return numbers, np.zeros_like(results)

    @staticmethod
    def a_bit_flips(session, numbers, results):
        for number in numbers.tolist():
            at, length = session.sent[number]
            session.arena[at + length // 2] ^= 4
        return numbers, results

    @staticmethod
    def extents_are_swapped(session, numbers, results):
        for number in numbers.tolist():
            at, length = session.sent[number]
            session.arena[at : at + length] = np.roll(session.arena[at : at + length], 1 << 10)
        return numbers, results

    ends_badly = (always_fails, the_file_ends, a_bit_flips, extents_are_swapped)
