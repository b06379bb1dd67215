"""Files of text from users, read a line at a time with errors that name file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file, a byte order mark left out.

    A line ends with "\\n", "\\r\\n" or "\\r". What else Unicode calls line breaks (U+2028, NEL, form feed) stands in
    sentences and comments. Raises ValueError where there is no such file, or it is not UTF-8.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path} must be a file that can be read: it is no file")  # A pipe would be waited for.
    try:
        return Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise ValueError(f"{path} must be a file that can be read: {error.strerror or error}") from error


def json_object(text: str | bytes, where: str, expected: str) -> dict[str, Any]:
    """The JSON object that a line holds. where: file and line; expected: what the object should be, in words.

    Raises ValueError for bytes that are not UTF-8, for other JSON, a name that stands there twice, and half a surrogate
    pair, which no tokenizer and no table takes.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8: {error}") from error
    try:
        content = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON: {error}; expected {expected}, got {shown(text.strip())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where}: expected {expected}, got {shown(text.strip())}")
    for part in (*content, *content.values()):
        if isinstance(part, str) and any("\ud800" <= character <= "\udfff" for character in part):
            raise ValueError(f"{where}: {shown(part)} holds half a surrogate pair, which is no text")
    return content


def shown(value: Any) -> str:
    """A value as an error quotes it: at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def printable(text: str) -> str:
    """The text with what ends a line, and every other control, escaped: a library's message may quote the file raw."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(content := dict(pairs)) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return content
