import asyncio

from lexmax.server.schemas import Limits, SearchOne
from lexmax.server.service import Service


def test_close_waits_for_searches_in_every_stage(retriever):
    # Without a web server in front that would wait by itself: the fake fails whatever is asked of it after close.
    async def run():
        service = Service(retriever, Limits())
        service.ready = True
        retriever.encoder_open.clear()
        queries = [SearchOne(query=f"q{i}", k=1, search=None, filter=None) for i in range(3)]
        searches = [asyncio.create_task(service.search(query)) for query in queries]
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
        assert all(answer.startswith('{"results":[{"doc_id":"a"') for answer in await asyncio.gather(*searches))

    asyncio.run(asyncio.wait_for(run(), 20))


def test_close_leaves_the_index_open_under_a_thread_that_does_not_end(retriever):
    async def run():
        service = Service(retriever, Limits())
        service.ready = True
        retriever.search_open.clear()
        search = asyncio.create_task(service.search(SearchOne(query="q", k=1, search=None, filter=None)))
        while not retriever.searched:
            await asyncio.sleep(0.001)
        search.cancel()
        await service.close(0.01)
        assert service.busy
        assert not retriever.closed
        retriever.search_open.set()
        while service.busy:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(run(), 20))
