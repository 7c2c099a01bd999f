"""URL and token of Sluice: from options, else the environment, else ~/.config/sluice/config.toml."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from app.cli.errors import usage

DEFAULT_URL = "http://127.0.0.1:7080"


@dataclass(frozen=True)
class ServerAddress:
    """Address of a Sluice: `url` without a trailing slash, and `token`, None if none was given."""

    url: str
    token: str | None = field(default=None, repr=False)


def find_server(url: str | None, token: str | None) -> ServerAddress:
    """Return the server's address from the options, completed from the configuration file.

    The options already contain the environment's values. Raises CliError.
    """
    if url and token:
        return ServerAddress(_checked(url), token)
    retained = _read(config_file())
    # the file's token belongs to the file's URL: do not send it to another Sluice
    same_place = url is None or _checked(url) == _checked(retained.get("url", DEFAULT_URL))
    return ServerAddress(
        _checked(url or retained.get("url", DEFAULT_URL)), token or (retained.get("token") if same_place else None)
    )


def config_file() -> Path:
    """Return the path of the user's configuration file, whether the file exists or not."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return Path(home) / "sluice" / "config.toml"


def _read(path: Path) -> dict[str, str]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise usage(f"{path} cannot be read: {error}", 'The file has two lines: url = "…" and token = "…".') from error
    for name, value in values.items():
        if name not in ("url", "token") or not isinstance(value, str):
            raise usage(f"{path}: unknown or invalid key {name}", 'The file has two lines: url = "…" and token = "…".')
    return values


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise usage(f"invalid address of Sluice: {url!r}", f"Use an address such as {DEFAULT_URL}.")
    return url.rstrip("/")
