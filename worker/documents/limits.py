"""What a document may be at most, and the error that says why one can't be used."""

from repo.errors import DecnetReaperError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64


class InvalidDocument(DecnetReaperError, ValueError):
    """The document, or the choice of its services, can't be used; the message says where and why."""


def too_large() -> InvalidDocument:
    return InvalidDocument(f"the document is larger than {MAX_BYTES} bytes; move what is big into an image")


def too_deep() -> InvalidDocument:
    return InvalidDocument(f"the document is nested more than {MAX_DEPTH} levels deep, or contains itself")
