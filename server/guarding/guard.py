"""ASGI middleware that lets requests pass with a key alone; before it, nothing of their body is read.

A key comes as ``Authorization: Bearer KEY``, as ``X-API-Key: KEY``, or as the password of ``Authorization: Basic``, which
browsers ask for. Whatever is not known to only read needs a key that may write.
"""

import base64
import binascii
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import RefusedError
from ..observing.notes import notes_of
from .keys import KeyFile

OPEN = frozenset({"/healthz", "/readyz"})
"""Addresses that need no key: what watches over a process has none."""
READING_POSTS = re.compile(r"/v1/(indexes/[^/]+/)?(search|search/batch)|/v1/(embeddings|rerank)|/mcp/?")
"""Addresses of POST that change nothing."""
ASK = {"WWW-Authenticate": 'Bearer realm="lexmax", Basic realm="lexmax: any user name, a key as password", charset="UTF-8"'}


def only_reads(method: str, path: str) -> bool:
    """Whether a request is known to change nothing."""
    return method in ("GET", "HEAD", "OPTIONS") or (method == "POST" and READING_POSTS.fullmatch(path) is not None)


class Guard:
    """Refuses with 401 who has no key, and with 403 who has one of too small a scope."""

    def __init__(self, app: ASGIApp, keys: KeyFile) -> None:
        self.app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or raise RefusedError, which `OneErrorShape` outside answers."""
        if scope["type"] == "http" and scope["path"] not in OPEN:
            self._check(scope)
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        text = key_text(Headers(scope=scope))
        if text is None:
            message = "this server wants a key: send Authorization: Bearer KEY (`lexmax keys add` makes one)"
            raise RefusedError(401, "unauthorized", message, ASK)
        key = self._keys.find(text)
        if key is None:
            raise RefusedError(401, "unauthorized", "this key is not known, or no longer", ASK)
        notes_of(scope).key = key.name
        if key.scope != "write" and not only_reads(scope["method"], scope["path"]):
            message = f"the key {key.name!r} may only read: this request needs one of scope write"
            raise RefusedError(403, "forbidden", message)


def key_text(headers: Headers) -> str | None:
    """Return the key that headers bring, whatever it is; None where they bring none."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return headers.get("x-api-key")
