"""What is said back, with the headers that clients read."""

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
"""Exactly 204: Netflix's client compares."""
NOT_FOUND = Answer(404)
"""Without a body: with one, Netflix's own client never registers again (spring-measured.md 11)."""
BAD_VALUE = Answer(500)
"""The Java server's answer to a missing or unknown override."""
UNAUTHORIZED = Answer(401, headers=((b"www-authenticate", b'Basic realm="eureka"'),))
UNSUPPORTED = Answer(415)
NOT_ACCEPTABLE = Answer(406)


def plain(status: int, words: str) -> Answer:
    """Words for a person, typed as the Java server types them."""
    return Answer(status, words.encode(), ((b"content-type", JSON),))


def document(body: bytes, kind: bytes, *, gzipped: bool = False) -> Answer:
    """A listing, an application or an instance."""
    encoding = ((b"content-encoding", b"gzip"),) if gzipped else ()
    return Answer(200, body, ((b"content-type", kind), (b"vary", b"accept, accept-encoding"), *encoding))
