"""Responses of the Eureka port, with the headers that clients read."""

from __future__ import annotations

from dataclasses import dataclass

JSON, XML = b"application/json", b"application/xml"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


OK = Answer(200)
REGISTERED = Answer(204)
"""Status exactly 204: Netflix's client compares it."""
NOT_FOUND = Answer(404)
"""Response without a body: with one, Netflix's own client never registers again (measured)."""
BAD_VALUE = Answer(500)
"""The Java server's response to a missing or unknown override."""
UNAUTHORIZED = Answer(401, headers=((b"www-authenticate", b'Basic realm="eureka"'),))
UNSUPPORTED = Answer(415)
NOT_ACCEPTABLE = Answer(406)


def plain(status: int, words: str) -> Answer:
    """Return a text response for people, with the content type that the Java server uses."""
    return Answer(status, words.encode(), ((b"content-type", JSON),))


def document(body: bytes, kind: bytes, *, gzipped: bool = False) -> Answer:
    """Return a response with a list, an application or an instance."""
    encoding = ((b"content-encoding", b"gzip"),) if gzipped else ()
    return Answer(200, body, ((b"content-type", kind), (b"vary", b"accept, accept-encoding"), *encoding))
