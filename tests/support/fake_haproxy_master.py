"""A HAProxy master without a process: it loads the file in its directory, and may reject it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.gateway.config.model import GatewaySettings
from services.gateway.lifecycle.config_state import ConfigState
from services.gateway.lifecycle.listener_retention import ListenerRetention
from services.gateway.lifecycle.reload import Reloader
from services.gateway.runtime.counters import Counters
from services.gateway.runtime.runtime_api import CommandRejected
from tests.support.gateway_fixture import BRIDGE, PUBLIC


class FakeMaster:
    """The part of RuntimeApi that a reload uses."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = GatewaySettings(BRIDGE, "127.0.0.0/8", PUBLIC)
        self.other_settings = replace(self.settings, maxconn=300)
        self.rejects = False
        self.on_reload: Callable[[], object] = lambda: None
        self._digest = ""

    async def start(self) -> None:
        """Load the current file, as a container that starts does."""
        found = re.search(r"set-var proc\.shape str\((\w+)\)", (self.directory / "haproxy.cfg").read_text())
        self._digest = found[1] if found else ""

    async def query(self, command: str) -> str:
        return f"proc.shape: type=str value=<{self._digest}>" if command == "get var proc.shape" else ""

    async def queued_requests(self) -> dict[str, int]:
        return {}

    async def reload(self) -> None:
        self.on_reload()
        if self.rejects:
            raise CommandRejected("reload", "[ALERT] no such word")
        await self.start()


def reloader_of(master: FakeMaster, config: ConfigState) -> Reloader:
    api: Any = master
    return Reloader(config, api, Counters(api), ListenerRetention(master.directory))


def content(directory: Path) -> dict[str, str]:
    """Return the files that HAProxy reads; no temporary file may be left beside them."""
    return {path.name: path.read_text() for path in sorted(directory.iterdir()) if path.is_file()}
