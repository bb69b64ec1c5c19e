"""The MCP server, asked by the official client: in this process, over stdin and stdout, and over HTTP."""

import asyncio
import os
import socket
import subprocess
import sys
import time

import httpx
import pytest
from mcp import Client, StdioServerParameters

from lexmax import Retriever, build_index
from lexmax.server.guarding.keys import make_key, write_keys
from lexmax.server.mcp.tools import mcp_server

DOCUMENTS = [
    {"id": "sun", "title": "Solar", "text": "solar cells", "year": 2021},
    {"id": "air", "title": "Wind", "text": "wind power " * 300, "year": 2019},
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("mcp") / "energy"
    build_index(documents=DOCUMENTS, out=path, encoders=["bm25"])
    return path


async def ask_all(client):
    """Use every tool; returns what came."""
    listed = await client.list_tools()
    found = await client.call_tool("search", {"query": "wind", "k": 3})
    gone = await client.call_tool("get", {"doc_id": "none"})
    return {
        "tools": sorted(tool.name for tool in listed.tools),
        "search": found.structured_content,
        "filtered": (await client.call_tool("search", {"query": "solar wind", "filter": "year >= 2020"})).structured_content,
        "get": (await client.call_tool("get", {"doc_id": "air"})).structured_content,
        "explain": (await client.call_tool("explain", {"query": "wind", "doc_id": "air"})).structured_content,
        "gone": (gone.is_error, gone.content[0].text),
    }


def check(found):
    assert found["tools"] == ["explain", "get", "search"]
    (hit,) = found["search"]["results"]
    assert (hit["doc_id"], hit["title"], hit["cut"], len(hit["text"])) == ("air", "Wind", True, 2000)
    assert [each["doc_id"] for each in found["filtered"]["results"]] == ["sun"]
    assert found["get"]["text"] == DOCUMENTS[1]["text"]
    terms = found["explain"]["explanation"]["stages"][0]["fields"][0]["terms"]
    assert (found["explain"]["rank"], [term["term"] for term in terms]) == (1, ["wind"])
    is_error, message = found["gone"]
    assert is_error
    assert "there is no document 'none'" in message


def test_the_tools_in_this_process(path):
    async def run():
        with Retriever.open(path) as retriever:
            async with Client(mcp_server({"energy": retriever})) as client:
                check(await ask_all(client))
                for arguments, message in (
                    ({"query": "x", "index": "enrgy"}, "did you mean 'energy'?"),
                    ({"query": "x", "filter": "yaer > 3 and"}, "filter"),
                    ({"query": "x", "search": "splade"}, "there is no field 'splade'"),
                    ({"query": "x", "k": 1000}, "50"),
                    ({"query": ""}, "at least 1"),
                ):
                    answer = await client.call_tool("search", arguments)
                    assert answer.is_error
                    assert message in answer.content[0].text
                late = await client.call_tool("explain", {"query": "wind", "doc_id": "sun"})
                assert "is not among the 20 best" in late.content[0].text

    asyncio.run(asyncio.wait_for(run(), 120))


def test_commits_of_others_are_seen(tmp_path):
    build_index(documents=DOCUMENTS[:1], out=tmp_path / "i", encoders=["bm25"])

    async def run():
        with Retriever.open(tmp_path / "i") as retriever, Retriever.open(tmp_path / "i") as other:
            async with Client(mcp_server({"i": retriever})) as client:
                assert (await client.call_tool("search", {"query": "wind"})).structured_content == {"results": []}
                other.add(DOCUMENTS[1:])
                assert len((await client.call_tool("search", {"query": "wind"})).structured_content["results"]) == 1

    asyncio.run(asyncio.wait_for(run(), 120))


def test_over_stdin_and_stdout(path):
    async def run():
        command = StdioServerParameters(command=sys.executable, args=["-m", "lexmax", "mcp", str(path)], env=dict(os.environ))
        async with Client(command) as client:
            check(await ask_all(client))

    asyncio.run(asyncio.wait_for(run(), 180))


def test_over_http_with_keys(path, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text, key = make_key("agent", "read")
    write_keys(tmp_path / "keys.json", {key.id: key})
    url = f"http://127.0.0.1:{port}/mcp"
    command = [sys.executable, "-m", "lexmax", "mcp", str(path), "--http", "--port", str(port), "--keys"]
    with subprocess.Popen([*command, str(tmp_path / "keys.json")]) as process:
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                try:
                    assert httpx.post(url, json={}).status_code == 401
                    break
                except httpx.TransportError:
                    time.sleep(0.1)

            async def run():
                from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

                headers = {"Authorization": f"Bearer {text}"}
                async with (
                    create_mcp_http_client(headers=headers) as http,
                    Client(streamable_http_client(url, http_client=http)) as client,
                ):
                    check(await ask_all(client))

            asyncio.run(asyncio.wait_for(run(), 120))
        finally:
            process.terminate()
            process.wait(30)


def test_keys_are_for_http():
    command = [sys.executable, "-m", "lexmax", "mcp", "none", "--keys", "keys.json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--keys is for --http" in ended.stderr
