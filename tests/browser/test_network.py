"""The browser's network is not affected by changes of the machine's network."""

from __future__ import annotations

import os
import socket
import subprocess
import threading

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Complaints
from tests.support.dashboard_server import free_port

pytestmark = [pytest.mark.browser, pytest.mark.docker]
PAGE = b'<link rel="icon" href="data:,"><h1>there</h1>'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(PAGE) + PAGE


def test_page_load_survives_a_new_network_interface(page: Page) -> None:
    """Without the namespace, Chromium aborts pending connections when an address is added: ERR_NETWORK_CHANGED."""
    name = f"sluice-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:  # fill the queue, so that a further connection stays pending
            each.setblocking(False)
            each.connect_ex(address)

        def answer() -> None:
            subprocess.run(["docker", "network", "create", name], check=True, capture_output=True)
            for each in waiting:
                each.close()
            listener.settimeout(20)
            asked = b""
            while not asked:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(20)
                    asked = connection.recv(2**16)
                    connection.sendall(ANSWER if asked else b"")

        beside = threading.Thread(target=answer)
        beside.start()
        try:
            page.goto(f"http://127.0.0.1:{address[1]}/")
            expect(page.get_by_role("heading")).to_have_text("there")
        finally:
            beside.join()
            subprocess.run(["docker", "network", "rm", name], check=True, capture_output=True)


def test_page_load_fails_when_the_connection_is_refused(page: Page, complaints: Complaints) -> None:
    with pytest.raises(Exception, match="ERR_SOCKS_CONNECTION_FAILED"):
        page.goto(f"http://127.0.0.1:{free_port()}/")
    complaints.clear()
