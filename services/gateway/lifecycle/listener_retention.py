"""Copies of the sockets on which the gateway listens (docs/why-kept-sockets.md).

While the gateway is away, the kernel queues new connections and refuses none. The gateway that starts next takes over the
same sockets.

The protocol is HAProxy's own (src/cli.c and src/sock.c of 3.0). After the request `_getsocks` HAProxy sends the number of
sockets, then the sockets, at most 252 per message. Each socket comes with six bytes, which are zeros if it has neither
namespace nor interface. The receiver acknowledges a full message.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import structlog

from services.gateway.runtime.takeover import ADMIN, MASTER

log = structlog.get_logger(__name__)
RETENTION_SOCKET = "kept.sock"
"""Name of the socket at which a gateway that starts finds the copies (start.sh)."""
CAPABILITY_VARIABLE = "SLUICE_TAKES_KEPT"
"""Environment variable of a gateway that looks at `kept.sock`.

An older gateway could not listen while the sockets are retained.
"""
RELEASE_AFTER = 8.0
"""Seconds without a listening gateway after which the copies are closed.

This is less than `HUNG` in services/infrastructure: a port that is silent for that long then belongs to a gateway that
hangs.
"""
POLL_INTERVAL = 1.0
"""Seconds between two checks whether a gateway listens; no event reports it."""
ANSWER_TIMEOUT = 1.0
"""Seconds to wait for an answer, as HAProxy does."""
Bind = tuple[str, int]
_REQUEST = b"_getsocks\n"
_MAX_PER_MESSAGE = 252
_SOCKET_METADATA = bytes(6)
_NUMBER = struct.Struct("=i")


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
            return {_bind(each) for each in self._held}

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
        """Limit retention to `binds`, the only ones on which the present worker listens.

        Copies for other binds are closed; copies for new binds will be fetched.
        """
        with self._guard:
            self._binds = binds
            self._version += 1
            self._hold([each for each in self._held if _bind(each) in binds])
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
            _connect(self._directory / ADMIN, b"").close()
            return
        version = self._version
        received = receive_listeners(self._directory / ADMIN) if _is_capable(self._directory / MASTER) else []
        with self._guard:
            self._hold([each for each in received if _bind(each) in self._binds])
            for each in set(received) - set(self._held):
                each.close()
            # A worker that is being replaced may have answered: it has none of the new sockets.
            if {_bind(each) for each in self._held} == self._binds:
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


def receive_listeners(admin: Path) -> list[socket.socket]:
    """Return copies of all sockets on which the HAProxy behind `admin` listens. Raises OSError."""
    with _connect(admin, _REQUEST) as connection, ExitStack() as undone:
        number = connection.recv(_NUMBER.size, socket.MSG_WAITALL)
        if 0 < len(number) < _NUMBER.size:
            raise ConnectionError("HAProxy closed the connection within its answer")
        received: list[socket.socket] = []
        while number and len(received) < _NUMBER.unpack(number)[0]:
            # Not recv_fds: it ignores its flags (Python 3.11 to 3.13), and child processes would inherit the sockets.
            space = socket.CMSG_SPACE(_MAX_PER_MESSAGE * _NUMBER.size)
            _, rights, _, _ = connection.recvmsg(65536, space, socket.MSG_CMSG_CLOEXEC)
            descriptors = [each for _, _, data in rights for (each,) in _NUMBER.iter_unpack(data)]
            if not descriptors:
                raise ConnectionError("HAProxy sent fewer sockets than it announced")
            received += [undone.enter_context(socket.socket(fileno=each)) for each in descriptors]
            if len(descriptors) == _MAX_PER_MESSAGE:
                connection.sendall(_NUMBER.pack(len(received)))
        undone.pop_all()
        return received


def send_listeners(connection: socket.socket, sockets: Sequence[socket.socket]) -> None:
    """Send the sockets to the HAProxy that requests them on `connection`. Raises OSError."""
    connection.settimeout(ANSWER_TIMEOUT)
    if connection.recv(len(_REQUEST)) != _REQUEST:
        return
    connection.sendall(_NUMBER.pack(len(sockets)))
    for first in range(0, len(sockets), _MAX_PER_MESSAGE):
        part = [each.fileno() for each in sockets[first : first + _MAX_PER_MESSAGE]]
        socket.send_fds(connection, [_SOCKET_METADATA * len(part)], part)
        connection.recv(_NUMBER.size)


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


def _connect(path: Path, line: bytes) -> socket.socket:
    """Connect to a UNIX socket and send one line."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_TIMEOUT)
        connection.connect(str(path))
        connection.sendall(line)
    except OSError:
        connection.close()
        raise
    return connection


def _is_capable(master: Path) -> bool:
    """Return whether the present gateway would take over the sockets.

    Raises OSError if the gateway does not say.
    """
    with _connect(master, f"@1 show env {CAPABILITY_VARIABLE}\n".encode()) as connection:
        answer = connection.recv(4096)
    if f"{CAPABILITY_VARIABLE}=".encode() in answer:
        return True
    if b"not found" in answer:
        return False
    raise ConnectionError("HAProxy has no worker that could answer")


def _bind(listening: socket.socket) -> Bind:
    """Return address and port; `("", 0)` for a socket with a path.

    HAProxy creates a socket with a path again by itself, and no client of the gateway connects to it.
    """
    if listening.family != socket.AF_INET:
        return "", 0
    address, port = listening.getsockname()
    return address, port
