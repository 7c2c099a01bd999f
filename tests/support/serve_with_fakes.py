"""The application on fakes, as a separate process: `python -m tests.support.serve_with_fakes`.

Engine and gateway are fakes.

SLUICE_DATA and SLUICE_PORT as for the real one.
"""

from __future__ import annotations

import os
from pathlib import Path

from app import log_config
from app.http.sockets import bind_tcp
from app.server import server_of
from tests.support.app_fixture import build
from tests.support.fakes.engine import Behaviour

START_TAKES = 0.4
"""Seconds that a container's start takes, as on a busy engine."""


def main() -> None:
    fixture = build(Path(os.environ["SLUICE_DATA"]), log_level="warning")
    fixture.infrastructure.subnet = "10.99.0.0/16"
    log_config.configure(fixture.settings)
    for version in ("hello:1", "hello:2"):
        fixture.image(version)
        fixture.engine.behave(version, Behaviour(start_takes=START_TAKES))
    server_of(fixture.app, fixture.settings).run(sockets=[bind_tcp("127.0.0.1", int(os.environ["SLUICE_PORT"]))])


if __name__ == "__main__":
    main()
