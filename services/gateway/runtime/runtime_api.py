"""The only module that sends commands to HAProxy.

Each command has its own connection. Its answer is returned, or raised as the error that it means.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from services.routing.port import RoutingError

CURRENT = "@1"
"""Address of the worker that takes new connections.

`@!<pid>` addresses any worker, including replaced ones; the empty string addresses the master. The name of another master's
socket before it (`leaving-3f2a.sock@!14`) addresses that master instead of the current one.
"""
COMMAND_TIMEOUT = 5.0
"""Seconds until a command without an answer fails."""
MASTER_RESTART_TIMEOUT = 1.0
"""Seconds that the master may be away.

The master restarts itself on a reload, and refuses connections until it is ready.
"""
URGENT_RETRY_INTERVAL = 0.25
"""Seconds after which an urgent command is sent again.

The master forgets commands that it accepted just before it restarted itself.
"""
MAX_CONCURRENT_COMMANDS = 6
"""Maximum number of concurrent commands.

The master takes ten connections at a time; urgent commands are exempt from this limit.
"""
_SUCCESS_ANSWERS = ("", "New server registered.", "Server deleted.", "Done.")


class CommandRejected(RoutingError):
    """HAProxy read the command and refused it; `reason` is HAProxy's own text."""

    def __init__(self, command: str, reason: str) -> None:
        super().__init__(f"HAProxy refused {command.splitlines()[0]!r}: {reason}")
        self.reason = reason


class OldMasterGone(RoutingError):
    """The master of a replaced gateway does not exist any more."""


class RuntimeApi:
    """Commands to the master, and through it to every worker.

    All methods raise RoutingError; for a replaced master that has ended they raise OldMasterGone.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_COMMANDS)

    async def query(self, command: str, worker: str = CURRENT, *, timeout: float = COMMAND_TIMEOUT) -> str:
        """Send a command that shows something, and return its answer unchanged."""
        async with self._slots:
            return await self._exchange(command, worker, timeout)

    async def execute(
        self, command: str, worker: str = CURRENT, *, timeout: float = COMMAND_TIMEOUT, urgent: bool = False
    ) -> None:
        """Send a command that changes something.

        Raises CommandRejected for any answer but those that mean success. An `urgent` command does not wait for other
        commands and may coincide with a reload; it must be harmless when sent twice.
        """
        if urgent:
            answer = await self._exchange(command, worker, timeout, attempt=URGENT_RETRY_INTERVAL)
        else:
            answer = await self.query(command, worker, timeout=timeout)
        if answer.strip() not in _SUCCESS_ANSWERS:
            raise CommandRejected(command, answer.strip())

    async def queued_requests(self) -> dict[str, int]:
        """Return how many requests wait for an instance, by service.

        hold.lua defines the command `show held`.
        """
        lines = (await self.query("show held")).split("\n")
        return {service: int(number) for service, _, number in (line.partition(" ") for line in lines) if number}

    async def wait_for_exit(self, within: float) -> bool:
        """Return True if the current master ends, restarts itself or is absent; False after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    await reader.read(-1)
                finally:
                    writer.close()
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    async def reload(self, *, timeout: float = 30) -> None:
        """Make the master read its file again.

        Raises CommandRejected with HAProxy's own text if the master cannot use the file; the worker then continues.
        """
        answer = await self.query("reload", "", timeout=timeout)
        if not answer.startswith("Success=1"):
            raise CommandRejected("reload", _alerts(answer))

    async def _exchange(self, command: str, worker: str, timeout: float, *, attempt: float | None = None) -> str:
        loop = asyncio.get_running_loop()
        old_master, at, target = worker.partition("@")
        socket = self._socket.with_name(old_master) if old_master else self._socket
        line = f"{at}{target} {command}\n".lstrip()
        # An urgent command is repeated for longer than a slow reload takes.
        deadline = loop.time() + (MASTER_RESTART_TIMEOUT if attempt is None else timeout)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        async with asyncio.timeout(attempt):
                            if answer := await self._once(socket, line):
                                return answer
                        cause = "it closes the connection"
                    except OSError as error:
                        cause = error.strerror or str(error)
                        if old_master and isinstance(error, ConnectionRefusedError | FileNotFoundError):
                            raise OldMasterGone(f"The replaced gateway has ended: {cause}") from None
                    if loop.time() > deadline:
                        raise RoutingError(f"The gateway does not answer: {cause}")
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise RoutingError(f"The gateway did not answer {command.split()[0]!r} within {timeout:g} s") from None

    async def _once(self, socket: Path, line: str) -> str:
        """Send one line and return the answer; empty if there was none.

        An answer has at least an empty line. The end of input is sent only once the answer begins. If the master (3.0.11)
        receives both together, it never answers for a worker that does not exist, and never releases that connection.
        """
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(line.encode())
            if not (first := await reader.read(1)):
                return ""
            with suppress(OSError):  # HAProxy may have sent the whole answer and closed
                writer.write_eof()
            return (first + await reader.read(-1)).decode(errors="replace")
        finally:
            writer.close()


def _alerts(startup_log: str) -> str:
    """Return the lines of a failed start's log that say why it failed."""
    lines = [line for line in startup_log.splitlines() if "[ALERT]" in line]
    return "\n".join(lines[:10]) or startup_log.strip()
