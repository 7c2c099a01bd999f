"""Set up a new network namespace: bring loopback up, hand the proxy's listening socket over, run the command."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
PROXY_PORT = 1080


def main() -> None:
    with socket.socket() as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    with socket.create_server(("127.0.0.1", PROXY_PORT)) as listener, socket.socket(socket.AF_UNIX) as outside:
        outside.connect(os.environ["SLUICE_TEST_PROXY"])
        socket.send_fds(outside, [b"1"], [listener.fileno()])
        outside.recv(1)
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - the test's own browser


if __name__ == "__main__":
    main()
