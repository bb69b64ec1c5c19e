"""The page in headless Chromium, without scripts: search, explain, filter, error, empty, zoom, light and dark.

``LEXMAX_SCREENSHOTS=docs/images`` keeps the pictures that the documentation shows.
"""

import base64
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import zlib
from pathlib import Path

import pytest

from lexmax import build_index, calibrate

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt install chromium)")
DOCUMENTS = [
    ("vitamin", "Vitamin D and bones", "Vitamin D helps the body to take up calcium, which keeps bones strong."),
    ("sun", "Sunlight", "The skin makes vitamin D when sunlight reaches it; in winter many people lack it."),
    ("heart", "The heart", "Physical exercise and a diet of vegetables lower the risk of heart disease."),
    ("fish", "Oily fish", "Salmon and herring hold vitamin D and fatty acids that the heart needs."),
    ("solar", "Solar cells", "Silicon cells turn the light of the sun into electric power."),
]


class Browser:
    """A tab of headless Chromium, driven over its debugging protocol by a bare WebSocket."""

    def __init__(self, port):
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                    (tab,) = [each for each in json.load(answer) if each["type"] == "page"][:1]
                break
            assert time.monotonic() < deadline, "chromium did not start"
            time.sleep(0.1)
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.settimeout(60)
        path = urllib.parse.urlsplit(tab["webSocketDebuggerUrl"]).path
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self._socket.sendall(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        self._stream = self._socket.makefile("rb")
        while self._stream.readline().strip():
            pass
        self._number, self.told = 0, []
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._number += 1
        self._send(json.dumps({"id": self._number, "method": method, "params": params}).encode())
        while (message := self._receive()).get("id") != self._number:
            self.told.append(message)
        assert "error" not in message, message
        return message["result"]

    def wait_for(self, event):
        while not any(each.get("method") == event for each in self.told):
            self.told.append(self._receive())

    def open(self, url):
        """Open an address; returns the milliseconds until it was loaded."""
        self.told.clear()
        started = time.perf_counter()
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")
        return (time.perf_counter() - started) * 1000

    def value(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def problems(self):
        """What the console would show in red."""
        entries = [each["params"]["entry"] for each in self.told if each.get("method") == "Log.entryAdded"]
        thrown = [each["params"] for each in self.told if each.get("method") == "Runtime.exceptionThrown"]
        return [entry for entry in entries if entry["level"] == "error"] + thrown

    def press(self, key, code, text=""):
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed)

    def picture(self):
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _send(self, data):
        mask = os.urandom(4)
        size = struct.pack(">BBQ", 0x81, 0x80 | 127, len(data))
        self._socket.sendall(size + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))

    def _receive(self):
        data, last = b"", False
        while not last:
            first, size = self._stream.read(2)
            last = bool(first & 0x80)
            if size >= 126:
                size = int.from_bytes(self._stream.read(2 if size == 126 else 8))
            data += self._stream.read(size)
        return json.loads(data)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path, port = tmp_path_factory.mktemp("page") / "health", free_port()
    documents = [
        {"id": doc_id, "title": title, "text": text, "year": 2020 + i} for i, (doc_id, title, text) in enumerate(DOCUMENTS)
    ]
    encoders = ["bm25", "splade=lexmax-splade", "colbert=lexmax-colbert"]
    build_index(documents=documents, out=path, encoders=encoders, search="(bm25 + splade) > colbert")
    calibrate(path, queries=["vitamin D for bones", "the heart", "sunlight"], k=2)
    with subprocess.Popen([sys.executable, "-m", "lexmax", "serve", str(path), "--port", str(port)]) as process:
        try:
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
                    break
                time.sleep(0.1)
            for _ in range(40):  # kernels of explanations are compiled once on a machine
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/explain?q=vitamin").close()
                    break
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    port = free_port()
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=900,700"]
    place = [f"--remote-debugging-port={port}", f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "about:blank"]
    with subprocess.Popen([CHROMIUM, *flags, *place], stderr=subprocess.DEVNULL) as process:
        try:
            browser = Browser(port)
            browser.call("Emulation.setScriptExecutionDisabled", value=True)
            yield browser
        finally:
            process.terminate()
            process.wait(60)


def keep(browser, name):
    """Check that a picture shows something, and keep it where that is asked for."""
    picture = browser.picture()
    assert len(picture) > 5000
    if folder := os.environ.get("LEXMAX_SCREENSHOTS"):
        (Path(folder) / f"{name}.png").write_bytes(picture)


def texts(browser, selector):
    return browser.value(f"[...document.querySelectorAll('{selector}')].map(each => each.innerText)")


def test_a_search_from_the_keyboard(browser, url):
    browser.open(f"{url}/")
    assert browser.problems() == []
    browser.press("Tab", 9)
    assert browser.value("document.activeElement.className") == "skip"
    browser.value("document.getElementById('q').focus()")
    browser.call("Input.insertText", text="vitamin D for bones")
    browser.told.clear()
    browser.press("Enter", 13, "\r")
    browser.wait_for("Page.loadEventFired")
    assert browser.problems() == []
    assert texts(browser, "article h2")[0] == "Vitamin D and bones"
    assert browser.value("document.querySelectorAll('article mark').length") > 2
    keep(browser, "page-search")


def test_a_warm_answer_comes_soon(browser, url):
    times = sorted(browser.open(f"{url}/?q=vitamin+{number}") for number in range(9))
    assert times[len(times) // 2] < 1000  # 200 on a machine of its own


def test_an_explanation_shows_bars_and_an_alignment(browser, url):
    browser.open(f"{url}/?q=vitamin+D+for+bones")
    address = browser.value("document.querySelector('article a').href")
    browser.open(address)
    assert browser.problems() == []
    assert browser.value("document.querySelectorAll('details[open] meter').length") > 3
    width = browser.value("document.querySelector('details[open] meter').getBoundingClientRect().width")
    assert width > 50
    browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    captions = texts(browser, "caption")
    assert any(each.startswith("Terms that") for each in captions)
    assert any(each.startswith("MaxSim") for each in captions)
    browser.value("document.querySelector('.explanation').scrollIntoView()")
    keep(browser, "page-explain")
    browser.value("document.querySelectorAll('.stage')[1].scrollIntoView()")
    keep(browser, "page-alignment")


def test_filters_errors_and_nothing_found(browser, url):
    browser.open(f"{url}/?q=vitamin&filter=year+%3E%3D+2023")
    assert "Oily fish" in texts(browser, "article h2")
    assert "Sunlight" not in texts(browser, "article h2")
    browser.open(f"{url}/?q=vitamin&filter=year+%3E")
    assert "filter" in texts(browser, "[role=alert]")[0]
    browser.open(f"{url}/?q=zzz&search=bm25")
    assert "No document answers this query." in texts(browser, ".empty")
    browser.open(f"{url}/facts")
    assert "Where the bytes are" in texts(browser, "caption")
    assert browser.problems() == []


def test_the_description_of_the_api_is_drawn_from_here(browser, url):
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    try:
        browser.open(f"{url}/docs")
        deadline = time.monotonic() + 60
        while "/v1/search" not in browser.value("document.getElementById('api').innerText"):
            assert time.monotonic() < deadline, "nothing was drawn"
            time.sleep(0.1)
        assert browser.problems() == []
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=True)
    asked = {each["params"]["request"]["url"] for each in browser.told if each.get("method") == "Network.requestWillBeSent"}
    assert len(asked) > 3
    assert all(each.startswith((url, "data:")) for each in asked)


def test_two_expressions_stand_side_by_side(browser, url):
    browser.open(f"{url}/?q=heart+vitamin&search=bm25&against=colbert")
    lefts = browser.value("[...document.querySelectorAll('.columns > section')].map(e => e.getBoundingClientRect().left)")
    assert len(lefts) == 2
    assert lefts[0] < lefts[1]
    keep(browser, "page-comparison")


def test_facts_of_an_index_show_sizes_and_the_calibration_curve(browser, url):
    browser.open(f"{url}/facts")
    assert texts(browser, "h2") == ["Calibration of colbert"]
    assert browser.value("document.querySelector('svg[role=img] polyline').getBoundingClientRect().width") > 100
    assert browser.problems() == []
    keep(browser, "page-facts")


@pytest.mark.parametrize("address", ["/?q=vitamin&search=bm25&against=colbert", "/explain?q=vitamin", "/facts"])
def test_at_200_percent_nothing_is_cut_off(browser, url, address):
    browser.call("Emulation.setDeviceMetricsOverride", width=450, height=350, deviceScaleFactor=2, mobile=False)
    try:
        browser.open(url + address)
        assert browser.value("document.documentElement.scrollWidth") <= 450
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def contrast(first, second):
    def luminance(colour):
        parts = [int(each) / 255 for each in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        red, green, blue = (each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_can_be_read(browser, url, scheme):
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(f"{url}/?q=vitamin+D")
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is (scheme == "light")
    for selector, least in (("article p", 7), ("a", 4.5), (".meta", 4.5)):
        ink = browser.value(f"getComputedStyle(document.querySelector('article {selector}, {selector}')).color")
        assert contrast(ink, paper) >= least
    mark = browser.value(
        "(e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor])(document.querySelector('mark'))"
    )
    assert contrast(*mark) >= 4.5
    browser.call("Emulation.setEmulatedMedia", features=[])


def test_what_assistive_technology_finds(browser, url):
    browser.open(f"{url}/?q=vitamin+D")
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {}
    for node in nodes:
        roles.setdefault(node.get("role", {}).get("value"), []).append(node.get("name", {}).get("value"))
    assert roles["main"]
    assert roles["search"]
    assert "Query" in roles["searchbox"]
    assert {"Pages"} <= set(roles["navigation"])
    assert any(name.startswith("Why is") for name in roles["link"])
    assert all(name for role in ("link", "button", "textbox", "searchbox") for name in roles.get(role, []))


def test_the_pictures_of_the_documentation_are_there_and_small():
    folder = Path(__file__).parents[2] / "docs" / "images"
    shown = ("page-search", "page-explain", "page-alignment", "page-comparison", "page-facts")
    pictures = [(folder / f"{name}.png").read_bytes() for name in shown]
    assert sum(map(len, pictures)) < 400_000
    for picture in pictures:
        assert picture.startswith(b"\x89PNG")
        assert zlib.crc32(picture[12:29]) == int.from_bytes(picture[29:33])
