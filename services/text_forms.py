"""Texts in a spec: the pattern, the length, and the sentence of the refusal of each kind."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, StringConstraints

SERVICE_NAME = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
"""A DNS label of at most 40 characters that begins with a letter."""

FORMS: dict[str, str] = {}
"""Pattern of a text in the spec → the sentence that says which texts are allowed."""


def form(pattern: str, allowed: str, max_length: int | None = None, min_length: int | None = None) -> StringConstraints:
    """Return the constraints of a kind of text, and keep in FORMS which texts are `allowed`."""
    FORMS[pattern] = allowed
    return StringConstraints(pattern=pattern, max_length=max_length, min_length=min_length)


ServiceName = Annotated[str, form(SERVICE_NAME, "must be the name of a service: a-z, 0-9 and '-', a letter first", 40)]

MAX_WORD = 131_072
"""Linux' limit for one word of a program's command line or environment, in bytes with the final NUL (MAX_ARG_STRLEN)."""
_ANY = r"^[^\x00]*$", "may have every character but NUL"
Text = Annotated[str, form(*_ANY, 4096)]
Word = Annotated[str, form(*_ANY, MAX_WORD)]
Name = Annotated[
    str,
    form(
        r"^[^=\x00-\x1f\x7f]+$",
        "must have one character at least; every one but '=' and control characters is allowed",
        4096,
    ),
]
"""The name of a variable or label: those that the engine accepts, except names with control characters."""
HeaderName = Annotated[
    str, form(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", "must be a header's name: letters, digits and !#$%&'*+.^_`|~-", 128)
]
HeaderValue = Annotated[str, form(r"^[\x20-\x7e]*$", "may have printable ASCII characters only", 1024)]
NetworkName = Annotated[
    str,
    form(
        r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        "must be names of networks that the engine has: letters, digits, '_', '.' and '-'",
        128,
    ),
]
_IN_PATH = "letters, digits and -._~!$&'()*+,;=:@%/"
Path = Annotated[
    str, form(r"^/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*$", f'must start with "/" and have no query; allowed are {_IN_PATH}', 512)
]
CheckPath = Annotated[
    str, form(r"^/[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*$", f'must start with "/"; allowed are {_IN_PATH}?', 512)
]
Host = Annotated[
    str,
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    form(
        r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$",
        'must be a host name such as "shop.example.com"',
        253,
    ),
]
_DOMAIN = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*(:[0-9]+)?"
_NAME = r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
ImageReference = Annotated[
    str,
    form(
        rf"^({_DOMAIN}/)?{_NAME}(/{_NAME})*(:{_TAG})?(@{_DIGEST})?$",
        'must be an image reference such as "web:1.5" or "registry.example/web@sha256:…"',
        512,
        1,
    ),
]
"""The grammar of github.com/distribution/reference, by which every engine reads image references.

An image's id is such a reference too.
"""
_SIGNAL = (
    "ABRT|ALRM|BUS|CHLD|CLD|CONT|FPE|HUP|ILL|INT|IO|IOT|KILL|PIPE|POLL|PROF|PWR|QUIT|SEGV|STKFLT|STOP|SYS|TERM|TRAP|TSTP|TTIN"
    r"|TTOU|URG|USR1|USR2|VTALRM|WINCH|XCPU|XFSZ|RTMIN(\+([1-9]|1[0-5]))?|RTMAX(-([1-9]|1[0-4]))?"
)
StopSignal = Annotated[str, form(rf"^((SIG)?({_SIGNAL})|[1-9]|[1-5][0-9]|6[0-4])$", 'must be a signal such as "SIGTERM"')]
"""A signal of Linux by name or number, as the engine reads it.

The engine refuses a container with any other stop signal.
"""
User = Annotated[
    str,
    form(
        r"^[A-Za-z0-9_.\-]+(:[A-Za-z0-9_.\-]+)?$",
        "must be a name or number, or \"user:group\", of letters, digits, '_', '.' and '-'",
        128,
    ),
]
WorkingDir = Annotated[str, form(r"^/[^\x00\n\r]*$", "must be an absolute path, without NUL and line ends", 1024)]
MountSource = Annotated[str, form(r"^[^\x00-\x1f\x7f]+$", "may have every character but control characters", 4096)]
MountTarget = Annotated[
    str, form(r"^/[^\x00:\n\r]*$", "must be an absolute path in the container, without ':', NUL and line ends", 512)
]
LogDriver = Annotated[str, form(r"^[a-z0-9-]{1,64}$", "must have 1 to 64 of a-z, 0-9 and '-'")]
ProfileName = Annotated[str, form(r"^[A-Za-z0-9_.\-]{1,64}$", "must have 1 to 64 letters, digits, '_', '.' and '-'")]
EurekaUrl = Annotated[
    str,
    form(
        r"^https?://[^\s/@]+(:[^\s/@]*@[^\s/@]+)?(/[^\s?#]*)?$",
        'must be a URL such as "http://eureka.example:8761/eureka/", without spaces or query',
        512,
    ),
]
