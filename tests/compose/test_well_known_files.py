"""The numbers of keys of ten well-known Compose files that are taken, implied and refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from services.compose.keys import DEPLOY, SERVICE, TOP
from services.compose.reader import ComposeOptions, survey
from tests.support.compose_files import TEN, Known, document

FOUND: dict[str, tuple[int, int, int, tuple[str, ...]]] = {
    # taken, implied, refused, and every field to correct before the whole file can be deployed
    "docker/awesome-compose": (24, 1, 2, ("s1.secrets", "s1.build", "s2.secrets")),
    "dockersamples/example-voting-app": (47, 8, 0, ()),
    "immich-app/immich": (25, 4, 1, ("s4.shm_size",)),
    "langfuse/langfuse": (68, 0, 0, ("s3.ports", "s4.ports")),
    "mastodon/mastodon": (43, 1, 1, ("s1.shm_size",)),
    "n8n-io/n8n-hosting": (41, 0, 0, ()),
    "open-telemetry/opentelemetry-demo": (378, 26, 1, ("s9.ports", "s21.ports", "s23.ports", "s25.ulimits")),
    "paperless-ngx/paperless-ngx": (16, 0, 0, ()),
    "supabase/supabase": (134, 13, 1, ("s2.ports", "s12.security_opt", "s13.ports")),
    "umami-software/umami": (22, 1, 0, ()),
}


@pytest.mark.parametrize("known", TEN, ids=lambda known: known.repository)
def test_every_key_of_a_well_known_file_is_accounted_for(known: Known) -> None:
    text = yaml.safe_dump(document(known), sort_keys=False)
    given = ComposeOptions(project="mine", directory="/srv/mine", env_files={"mine.env": {}})
    reading, refusals = survey(text, given)
    counted = reading.counted
    assert len(reading.services) == len(known.services)
    assert (counted["taken"], counted["implied"], counted["refused"]) == FOUND[known.repository][:3]
    assert tuple(finding.field.removeprefix("services.") for finding in refusals) == FOUND[known.repository][3]


def test_six_of_858_keys_are_refused() -> None:
    taken, implied, refused, _ = zip(*FOUND.values(), strict=True)
    assert (sum(taken), sum(implied), sum(refused)) == (798, 54, 6)


def test_docs_page_covers_every_key_with_same_counts() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compose.md").read_text()
    assert [key for key in (*SERVICE, *TOP, *DEPLOY) if f"`{key}`" not in page] == []
    for known in TEN:
        taken, implied, refused, _ = FOUND[known.repository]
        counts = f"| {len(known.services)} | {taken + implied + refused} | {taken} | {implied} | {refused} |"
        assert f"| {known.repository} `{known.path}` {known.commit[:8]} {counts}" in page
