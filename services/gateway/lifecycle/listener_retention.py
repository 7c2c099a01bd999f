"""Copies of the sockets on which the gateway listens (docs/why-kept-sockets.md).

While the gateway is away, the kernel queues new connections and refuses none. The gateway that starts next takes over the
same sockets.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import structlog

from services.gateway.runtime.listener_transfer import (
    Bind,
    bind_of,
    connect,
    receive_listeners,
    send_listeners,
    takes_over_listeners,
)
from services.gateway.runtime.takeover import ADMIN, MASTER

log = structlog.get_logger(__name__)
RETENTION_SOCKET = "kept.sock"
"""Name of the socket at which a gateway that starts finds the copies (start.sh)."""
RELEASE_AFTER = 8.0
"""Seconds without a listening gateway after which the copies are closed.

This is less than `HUNG_AFTER` in services/infrastructure: a port that is silent for that long then belongs to a gateway
that hangs.
"""
POLL_INTERVAL = 1.0
"""Seconds between two checks whether a gateway listens; no event reports it."""


class ListenerRetention:
    """Retention of the gateway's listening sockets.

    The class has threads of its own: a HAProxy that starts does not wait for a busy event loop.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._guard = threading.Lock()
        self._held: list[socket.socket] = []
        self._binds: frozenset[Bind] = frozenset()
        self._version, self._fetched_version = 0, 0
        """Number of times that the listening sockets may have changed, now and at the last fetch."""
        self._wake = threading.Event()
        self._server: socket.socket | None = None
        self._inode = 0
        self._watcher: threading.Thread | None = None
        self._closed = False

    @property
    def binds(self) -> set[Bind]:
        """Addresses and ports that are retained at present."""
        with self._guard:
            return {bind_of(each) for each in self._held}

    def start(self) -> None:
        """Open `kept.sock` before a gateway starts, also if the file was removed.

        If the socket cannot be opened, the copies are closed: they could not be handed over.
        """
        path = self._directory / RETENTION_SOCKET
        with suppress(FileNotFoundError):
            if path.stat().st_ino == self._inode:
                return
        self._close_server()
        try:
            self._server = server = _listen(path)
            self._inode = path.stat().st_ino
        except OSError as error:
            log.warning("gateway_sockets_not_kept", error=str(error))
            self._release()
            return
        threading.Thread(target=self._serve, args=(server,), name="listener-retention-server", daemon=True).start()
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="listener-retention-watcher", daemon=True)
            self._watcher.start()

    def set_binds(self, binds: frozenset[Bind]) -> None:
        """Limit retention to `binds`, the only ones on which the current worker listens.

        Copies for other binds are closed; copies for new binds will be fetched.
        """
        with self._guard:
            self._binds = binds
            self._version += 1
            self._hold([each for each in self._held if bind_of(each) in binds])
        self._wake.set()

    def close(self) -> None:
        """Stop for good and close the copies.

        Connections that wait in them are refused if no gateway is running.
        """
        self._closed = True
        self._wake.set()
        if self._watcher is not None:
            self._watcher.join()
            (self._directory / RETENTION_SOCKET).unlink(missing_ok=True)
        self._close_server()

    def _watch(self) -> None:
        last_listened = time.monotonic()
        try:
            while not self._closed:
                self._wake.wait(POLL_INTERVAL)
                self._wake.clear()
                try:
                    self._check()
                    last_listened = time.monotonic()
                except (BlockingIOError, TimeoutError):
                    last_listened = time.monotonic()  # a gateway that does not accept hangs, and still has the sockets
                except OSError:
                    if self._held and time.monotonic() - last_listened > RELEASE_AFTER:
                        log.warning("gateway_sockets_let_go", after=RELEASE_AFTER)
                        self._release()
        finally:
            self._release()

    def _check(self) -> None:
        """Fetch the listening sockets if they may have changed. Raises OSError if no gateway listens."""
        if self._fetched_version == self._version or self._server is None:
            connect(self._directory / ADMIN).close()
            return
        version = self._version
        received = receive_listeners(self._directory / ADMIN) if takes_over_listeners(self._directory / MASTER) else []
        with self._guard:
            self._hold([each for each in received if bind_of(each) in self._binds])
            for each in set(received) - set(self._held):
                each.close()
            # A worker that is being replaced may have answered: it has none of the new sockets.
            if {bind_of(each) for each in self._held} == self._binds:
                self._fetched_version = version

    def _release(self) -> None:
        with self._guard:
            self._version += 1
            self._hold([])

    def _hold(self, sockets: list[socket.socket]) -> None:
        before, self._held = self._held, sockets
        for each in set(before) - set(sockets):
            each.close()

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError as error:
                if self._server is not server:
                    return
                log.warning("gateway_sockets_not_given", error=str(error))  # too many open files, for example: retry
                time.sleep(POLL_INTERVAL)
                continue
            with connection, ExitStack() as copies, suppress(OSError):
                with self._guard:
                    sockets = [copies.enter_context(each.dup()) for each in self._held]
                send_listeners(connection, sockets)
                log.info("gateway_sockets_given", sockets=len(sockets))

    def _close_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown(socket.SHUT_RDWR)  # this wakes the thread in accept(); close() alone does not
            server.close()


def _listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        server.bind(str(path))
        path.chmod(0o600)
        server.listen()
    except OSError:
        server.close()
        raise
    return server
