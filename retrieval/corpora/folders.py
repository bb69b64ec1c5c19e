"""Folders: those of BEIR, and those of .txt and .md files, one file per document."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ...index.documents import Document
from ...index.errors import DatasetError
from .lines import MAX_LINE_BYTES

SUFFIXES = (".txt", ".md")
BEIR_FILES = ("corpus.jsonl", "corpus.jsonl.gz")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*")
_FENCE = re.compile(r" {0,3}(```|~~~)")


def beir_corpus(folder: Path) -> Path | None:
    """Return the corpus file of a BEIR folder; None in another folder."""
    return next((folder / name for name in BEIR_FILES if (folder / name).is_file()), None)


def text_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the text files below a folder, sorted by path, and the files that are left out: hidden or of other kinds."""
    found: list[Path] = []
    left_out: list[Path] = []
    for base, folders, names in os.walk(folder):
        left_out += [Path(base, name) for name in folders if name.startswith(".")]
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(base, name)
            (found if path.suffix.lower() in SUFFIXES and not name.startswith(".") else left_out).append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).parts), sorted(left_out)


def folder_documents(
    folder: Path, files: list[Path], left_out: list[Path], notice: Callable[[str], None] | None = None
) -> Iterator[tuple[Path, int, Document | ValueError]]:
    """Yield (file, line, document, or the reason why there is none).

    The doc_id is the path below the folder. The title is the first heading of a Markdown file, else the file's name without
    suffix; a heading that is the first line is not repeated in the text.
    """
    if left_out and notice:
        examples = ", ".join(str(path.relative_to(folder)) for path in left_out[:3]) + (", ..." if len(left_out) > 3 else "")
        notice(f"{folder}: {len(left_out)} files or folders are left out, hidden or neither .txt nor .md: {examples}")
    for path in files:
        try:
            data = _read(path)
            doc_id = path.relative_to(folder).as_posix()
            doc_id.encode()
            text = data.decode("utf-8-sig")
        except UnicodeEncodeError:
            yield path, 1, ValueError("the name of the file is not UTF-8")
        except UnicodeDecodeError as error:
            yield path, data.count(b"\n", 0, error.start) + 1, ValueError(f"not UTF-8 at byte {error.start + 1} of the file")
        except ValueError as error:
            yield path, 1, error
        else:
            title, text = titled(text, path) if path.suffix.lower() == ".md" else (path.stem, text)
            yield path, 1, Document(doc_id=doc_id, title=title, text=text)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LINE_BYTES + 1)
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror or error}", path=path, line=1) from error
    if len(data) > MAX_LINE_BYTES:
        raise ValueError(f"the file is longer than {MAX_LINE_BYTES >> 20} MiB")
    if b"\0" in data:
        raise ValueError("the file is not text: it has zero bytes")
    return data


def titled(text: str, path: Path) -> tuple[str, str]:
    """Return title and text of a Markdown file."""
    fence = ""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        mark = _FENCE.match(line)
        if mark:
            fence = "" if fence == mark[1] else fence or mark[1]
            continue
        heading = None if fence else _HEADING.fullmatch(line.rstrip("\r\n"))
        if heading and heading[1]:
            first = not "".join(lines[:number]).strip()
            return heading[1], "".join(lines[number + 1 :]).lstrip("\r\n") if first else text
    return path.stem, text
