"""API keys in a file: made by ``lexmax keys``, kept as hashes, compared in constant time.

A key is ``lexmax_ID_SECRET``. The secret has 256 random bits, so one round of SHA-256 keeps it: there is nothing to guess, and
a slow hash would only slow the server down.

::

    {"keys": [{"id": "3f9a0c12", "name": "web", "scope": "read", "sha256": "...", "created": "2026-11-29T12:00:00Z"}]}
"""

import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ...index.errors import StorageError
from ...index.refusals import storage_errors
from ...index.storage import replace_file

Scope = Literal["read", "write"]
SCOPES = ("read", "write")
KEY = re.compile(r"lexmax_(?P<id>[0-9a-f]{8})_[A-Za-z0-9_-]{43}")
NO_HASH = "0" * 64
MAX_NAME_CHARS = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Key:
    """What is kept of a key.

    Attributes
    ----------
    id : str
        Part of the key itself; no secret.
    name : str
        Whose it is, for people and for the access log.
    scope : {"read", "write"}
        What it allows; writing includes reading.
    sha256 : str
        Of the whole key, in hexadecimal digits.
    created : str
    """

    id: str
    name: str
    scope: Scope
    sha256: str
    created: str


def make_key(name: str, scope: Scope) -> tuple[str, Key]:
    """Return a new key, which is told once and kept nowhere, and what is kept of it.

    Raises
    ------
    ValueError
        An empty or overlong name, or an unknown scope.
    """
    if not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise ValueError(f"a key is named by 1 to {MAX_NAME_CHARS} printable characters, not {name[:MAX_NAME_CHARS]!r}")
    if scope not in SCOPES:
        raise ValueError(f"the scope of a key is read or write, not {scope!r}")
    number = secrets.token_hex(4)
    text = f"lexmax_{number}_{secrets.token_urlsafe(32)}"
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return text, Key(id=number, name=name, scope=scope, sha256=_hash(text), created=created)


def read_keys(path: Path) -> dict[str, Key]:
    """Read a file of keys, by id.

    Raises
    ------
    StorageError
        No such file, or it cannot be read.
    ValueError
        It is no file of keys.
    """
    with storage_errors(path):
        content = path.read_bytes()
    try:
        records = json.loads(content)["keys"]
        keys = [Key(**record) for record in records]
        if not all(_is_sound(key) for key in keys):
            raise TypeError("a key of another form")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no file of keys ({error}): make one with `lexmax keys add {path} --name NAME`") from None
    return {key.id: key for key in keys}


def write_keys(path: Path, keys: Mapping[str, Key]) -> None:
    """Write a file of keys in one step, for its owner alone; raises StorageError."""
    content = json.dumps({"keys": [asdict(key) for key in keys.values()]}, indent=1, ensure_ascii=False)
    with storage_errors(path):
        path.touch(mode=0o600, exist_ok=True)
        replace_file(path, content.encode())
        path.chmod(0o600)


class KeyFile:
    """The keys that a server takes, read again when their file changes.

    Raises
    ------
    StorageError, ValueError
        As `read_keys` does.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._state()
        self._keys = read_keys(path)

    def find(self, text: str) -> Key | None:
        """Return the key that a text is; None for any other. Takes as long whether or not its id is known."""
        match = KEY.fullmatch(text)
        key = self._keys.get(match["id"]) if match else None
        same = hmac.compare_digest(_hash(text), NO_HASH if key is None else key.sha256)
        return key if same else None

    def refresh(self) -> None:
        """Read the file if it has changed; where it cannot be read the keys stay as they were, and the log says so."""
        try:
            state = self._state()
            if state != self._seen:
                self._keys = read_keys(self._path)
                self._seen = state
                logger.info("read %d keys", len(self._keys))
        except (StorageError, ValueError) as error:
            logger.error("the keys stay as they were: %s", error)

    def _state(self) -> tuple[int, int, int]:
        with storage_errors(self._path):
            found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_sound(key: Key) -> bool:
    values: list[Any] = [getattr(key, each.name) for each in fields(Key)]
    return all(isinstance(value, str) for value in values) and key.scope in SCOPES and len(key.sha256) == len(NO_HASH)
