import asyncio
import json

import pytest

from lexmax.server.errors import RefusedError
from lexmax.server.limits import Limits
from lexmax.server.schemas.searches import SearchOne
from lexmax.server.searching.service import Service
from lexmax.server.transport.payloads import Budget, Share

QUERY = {"k": 1, "offset": 0, "search": None, "filter": None, "timeout_s": None}


async def opened(retriever):
    """A service that has opened its retriever and is ready."""
    service = Service(lambda: retriever, Limits(deadline_s=20.0))
    keeping = asyncio.create_task(service.keep_fresh(60))
    while not service.ready:
        await asyncio.sleep(0.001)
    keeping.cancel()
    retriever.batches.clear()
    retriever.searched.clear()
    return service


def search(service, query):
    return asyncio.create_task(service.search(SearchOne(query=query, **QUERY), Share(Budget(10**6))))


def test_close_waits_for_searches_in_every_stage(retriever):
    # Without a web server in front that would wait by itself: the fake fails whatever is asked of it after close.
    async def run():
        service = await opened(retriever)
        retriever.encoder_open.clear()
        searches = [search(service, f"q{i}") for i in range(3)]
        while not retriever.batches:
            await asyncio.sleep(0.001)
        closing = asyncio.create_task(service.close())
        retriever.search_open.clear()
        retriever.encoder_open.set()
        while not retriever.searched:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # time in which a hasty close would show
        retriever.search_open.set()
        await closing
        assert retriever.closed
        for written in await asyncio.gather(*searches):
            assert json.loads(b"".join(written.parts()))["results"][0]["doc_id"] == "a"

    asyncio.run(asyncio.wait_for(run(), 20))


def test_close_leaves_the_index_open_under_a_thread_that_does_not_end(retriever):
    async def run():
        service = await opened(retriever)
        retriever.search_open.clear()
        searching = search(service, "q")
        while not retriever.searched:
            await asyncio.sleep(0.001)
        searching.cancel()
        await service.close(0.01)
        assert service.busy
        assert not retriever.closed
        retriever.search_open.set()
        while service.busy:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_thread_ends_at_its_next_step_when_nobody_waits_for_it(retriever):
    async def run():
        service = await opened(retriever)
        retriever.search_open.clear()
        late = asyncio.create_task(service.search(SearchOne(query="q", **QUERY | {"timeout_s": 0.1}), Share(Budget(10**6))))
        with pytest.raises(RefusedError, match=r"no answer within 0\.1 s"):
            await late
        n_answered = len(retriever.options)
        retriever.search_open.set()
        while service.busy:
            await asyncio.sleep(0.001)
        assert (len(retriever.searched), len(retriever.options)) == (1, n_answered), "the rest of the work was not done"

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_request_that_would_be_too_late_is_refused_at_once(retriever):
    async def run():
        service = await opened(retriever)
        service._admission.pace_s = 2.0  # seconds per query; a deadline of 20 s
        retriever.encoder_open.clear()
        taken = [search(service, f"q{i}") for i in range(11)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in taken)
        with pytest.raises(RefusedError, match=r"11 queries are waiting already, some 22\.0 s of work") as refused:
            await search(service, "one more")
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "2"})
        retriever.encoder_open.set()
        await asyncio.gather(*taken)
        assert 0 < service._admission.pace_s < 2.0, "the pace follows what was answered"
        await search(service, "one more")

    asyncio.run(asyncio.wait_for(run(), 20))
