"""Files of an earlier Sluice are read, and their notes stay as they are."""

from __future__ import annotations

from pathlib import Path

from services.gateway.config.render import render, render_backend
from services.gateway.lifecycle.config_files import ConfigFiles

STORED = Path(__file__).with_name("stored_notes.cfg")
"""Notes that Sluice wrote in November 2026, before `Endpoint.start` became `start_id`."""


def test_file_of_an_earlier_sluice_is_read_and_its_notes_stay_the_same(tmp_path: Path) -> None:
    files = ConfigFiles(tmp_path)
    files.config.write_text(STORED.read_text())
    found = files.read()
    assert found is not None
    settings, backends = found
    starts = {endpoint.id: endpoint.start_id for each in backends for endpoint in each.endpoints.values()}
    assert starts == {"svc1-r1-1": "0123456789ab@2026-11-30T20:00:00.123456789Z"}
    files.write(render(settings, map(render_backend, backends)), settings, backends)
    notes = [line for line in files.config.read_text().splitlines() if line.startswith("#: ")]
    assert notes == STORED.read_text().splitlines()
