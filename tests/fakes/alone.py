"""A whole Sluice on a fake engine and a fake gateway, as a process of its own: `python -m tests.fakes.alone`.

SLUICE_DATA and SLUICE_PORT as for the real one.
"""

from __future__ import annotations

import os
from pathlib import Path

from app import logs
from app.listening import bound
from app.serve import server_of
from tests.app.house import build
from tests.fakes.engine import Behaviour

START_TAKES = 0.4
"""Seconds, as an engine with something to do takes."""


def main() -> None:
    house = build(Path(os.environ["SLUICE_DATA"]), log_level="warning")
    house.ground.subnet = "10.99.0.0/16"
    logs.configure(house.settings)
    for version in ("hello:1", "hello:2"):
        house.image(version)
        house.engine.behave(version, Behaviour(start_takes=START_TAKES))
    server_of(house.app, house.settings).run(sockets=[bound("127.0.0.1", int(os.environ["SLUICE_PORT"]))])


if __name__ == "__main__":
    main()
