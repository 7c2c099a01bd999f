"""Responses of the Eureka port, with the headers that clients read."""

from __future__ import annotations

from dataclasses import dataclass

JSON, XML = b"application/json", b"application/xml"


@dataclass(frozen=True)
class EurekaResponse:
    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


OK = EurekaResponse(200)
REGISTERED = EurekaResponse(204)
"""Status exactly 204: Netflix's client compares it."""
NOT_FOUND = EurekaResponse(404)
"""Response without a body: with one, Netflix's own client never registers again (measured)."""
BAD_VALUE = EurekaResponse(500)
"""The Java server's response to a missing or unknown override."""
UNAUTHORIZED = EurekaResponse(401, headers=((b"www-authenticate", b'Basic realm="eureka"'),))
UNSUPPORTED = EurekaResponse(415)
NOT_ACCEPTABLE = EurekaResponse(406)


def plain(status: int, words: str) -> EurekaResponse:
    """Return a text response for people, with the content type that the Java server uses."""
    return EurekaResponse(status, words.encode(), ((b"content-type", JSON),))


def document(body: bytes, kind: bytes, *, gzipped: bool = False) -> EurekaResponse:
    """Return a response with a list, an application or an instance."""
    encoding = ((b"content-encoding", b"gzip"),) if gzipped else ()
    return EurekaResponse(200, body, ((b"content-type", kind), (b"vary", b"accept, accept-encoding"), *encoding))
