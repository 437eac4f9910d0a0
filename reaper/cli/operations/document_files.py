"""What is asked for on the command line, read and checked before anything is submitted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from repo.errors import InvalidLifecycle
from repo.models import validation as fields
from worker.documents import document as documents
from worker.documents.document import MAX_BYTES, InvalidDocument

_ENDINGS = {".yaml", ".yml", ".json"}


class Request(NamedTuple):
    """One decky and its document."""

    decky_name: str
    document: dict[str, Any]


def read(file: str) -> str:
    """The text of a document; `-` is standard input.

    Raises:
        InvalidDocument: it can't be read, or is too large.
    """
    try:
        with click.open_file(file, "rb") as stream:
            text: bytes = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidDocument(f"{_named(file)} can't be read: {error.strerror}") from None
    if len(text) > MAX_BYTES:
        raise InvalidDocument(f"{_named(file)} is larger than {MAX_BYTES} bytes")
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise InvalidDocument(f"{_named(file)} is not UTF-8 text") from None


def of_file(names: Sequence[str], file: str) -> list[Request]:
    """A request for each name, out of one document.

    Raises:
        InvalidDocument: it is no document for one of them.
    """
    text = read(file)
    try:
        return [Request(name, documents.parse(text, name)) for name in dict.fromkeys(names)]
    except InvalidDocument as error:
        raise InvalidDocument(f"{_named(file)}: {error}") from None


def of_directory(directory: Path) -> list[Request]:
    """A request for each *.yaml, *.yml and *.json file, named like its decky, in the order of names.

    Raises:
        InvalidDocument: the directory can't be read, or has no such file.
        ExceptionGroup: some can't be used; each is named.
    """
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix in _ENDINGS)
    except OSError as error:
        raise InvalidDocument(f"{directory} can't be read: {error.strerror}") from None
    if not files:
        raise InvalidDocument(f"{directory} has no *.yaml, *.yml or *.json file")
    requests, wrong = [], []
    for file in files:
        try:
            fields.accepted({"decky_name": file.stem, "operation": "deploy"})
            requests.append(Request(file.stem, documents.parse(read(str(file)), file.stem)))
        except (InvalidDocument, InvalidLifecycle) as error:
            reason = str(error)
            wrong.append(InvalidDocument(reason if reason.startswith(str(file)) else f"{file}: {reason}"))
    first = {file.stem: file for file in reversed(files)}
    twice = [file for file in files if file is not first[file.stem]]
    wrong += [InvalidDocument(f"{file}: {first[file.stem].name} is the same decky's") for file in twice]
    if wrong:
        raise ExceptionGroup(
            f"nothing was submitted, since {len(wrong)} of the fleet's files can't be used", wrong
        )
    return requests


def _named(file: str) -> str:
    return "standard input" if file == "-" else file
