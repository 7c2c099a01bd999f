"""Requests are validated completely before a write, and a repeated request is one deployment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from services.actor import Actor
from services.engine.port import EngineError
from services.errors import RequestError
from services.idempotency import IdempotencyClaim
from services.rollouts.requests import commands
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.command import Command, DeployRequest, MergeMode, RequestContext
from services.rollouts.requests.pull_credentials import PullCredentials
from services.rollouts.requests.spec_merge import Layers
from services.rollouts.requests.submit import Submitter
from services.store.events import ChangeNotifier
from services.store.open import open_store
from services.store.tables import Deployment, Event, Meta, Revision, Service
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.engine import FakeEngine

CI = RequestContext(Actor("token", "ci", "192.0.2.7"))


@dataclass
class SubmitterHarness:
    """Submitter on a real store; `complete_deployment` completes deployments in place of the controller."""

    path: Path
    rules: AdmissionRules = field(default_factory=AdmissionRules)

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.engine = FakeEngine(self.clock)
        self.store = open_store(self.path)
        self.hints: list[str] = []
        self.credentials = PullCredentials()
        self.requests = Submitter(
            self.store, self.clock, self.engine, ChangeNotifier(), self.hints.append, self.rules, self.credentials
        )

    async def deploy(self, service: str = "web", call: RequestContext = CI, **fields: Any) -> int:
        return await self.submit(commands.deploy(DeployRequest(service, fields)), call)

    async def submit(self, command: Command, context: RequestContext = CI) -> int:
        return await self.requests.submit(command, context)

    def row(self, id: int) -> Deployment:
        with self.store.read_session() as session:
            return session.get_one(Deployment, id)

    def events(self, event_type: str) -> list[Event]:
        with self.store.read_session() as session:
            return list(session.exec(select(Event).where(Event.type == event_type).order_by(col(Event.id))))

    def complete_deployment(self, id: int, effective: dict[str, Any], number: int = 1) -> None:
        """Record that the deployment succeeded with this spec."""
        with self.store.write_session() as session:
            row = session.get_one(Deployment, id)
            service = session.get_one(Service, row.service)
            layers = Layers(effective, None, {})
            session.add(
                Revision(
                    service=row.service, number=number, spec=layers.base, effective=effective, image=effective["image"],
                    image_id="sha256:1", hash="0", served=True, deployment=id, created_at=0,
                )
            )  # fmt: skip
            row.status, row.revision = "succeeded", number
            service.revision, service.next_revision, service.replicas = number, number + 1, row.replicas or 0


@pytest.fixture
def harness(tmp_path: Path) -> SubmitterHarness:
    return SubmitterHarness(tmp_path)


def run(scenario: Callable[[], Awaitable[Any]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


async def refused(work: Awaitable[Any]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await work
    return caught.value


def test_first_deployment_enqueues_service_and_records_caller(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        id = await harness.deploy(image="web:1", replicas=3)
        row = harness.row(id)
        assert (row.kind, row.status, row.replicas, row.image, row.created_by_name) == (
            "deploy",
            "pending",
            3,
            "web:1",
            "ci",
        )
        assert harness.hints == ["web"]
        created = harness.events("created")[0]
        assert (created.actor_name, created.remote, created.deployment) == ("ci", "192.0.2.7", id)

    run(scenario)


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({}, "image", "required"),
        ({"image": "web:1", "replica": 3}, "replica", 'did you mean "replicas"'),
        ({"image": "web:1", "nonsense": None}, "nonsense", "unknown field"),
        ({"image": "web:1", "replica": None}, "replica", 'did you mean "replicas"'),
        ({"image": "web:1", "build": None}, "build", "not supported here"),
        ({"image": "web:1", "healthcheck": {"paht": None}}, "healthcheck.paht", 'did you mean "path"'),
        ({"image": "web:1", "eureka": {"ulr": None}}, "eureka.ulr", 'did you mean "url"'),
        ({"image": "web:1", "profiles": {"p": {"nonsense": None}}}, "profiles.p.nonsense", "unknown field"),
        ({"image": "web:1", "profiles": {"p": {"profiles": None}}}, "profiles.p.profiles", "unknown field"),
        ({"image": "web:1", "replicas": 101}, "replicas", "100"),
        ({"image": "web:1", "replicas": "many"}, "replicas", "must be a whole number"),
        ({"image": "web 1"}, "image", "image reference"),
        ({"image": "web:1\n  bind *:1"}, "image", "image reference"),
        ({"image": "web:1", "healthcheck": {"paht": "/"}}, "healthcheck.paht", 'did you mean "path"'),
        ({"image": "web:1", "healthcheck": {"any_below_500": True}}, "healthcheck.any_below_500", "unknown field"),
        ({"image": "web:1", "healthcheck": {"any_below_500": None}}, "healthcheck.any_below_500", "unknown field"),
        ({"profiles": {"p": {"healthcheck": {"any_below_500": True}}}}, "profiles.p.healthcheck.any_below_500", "unknown"),
        ({"image": "web:1", "command": ["true", "ü" * 65_536]}, "command.1", "at most 131071 bytes"),
        ({"image": "web:1", "environment": {"A": "x" * 131_070}}, "environment.A", "at most 131071 bytes"),
        ({"image": "web:1", "volumes": ["v:/data"]}, "volumes.0.source", "at least two characters"),
        ({"image": "web:1", "environment": "A=1"}, "environment", "must be a mapping"),
        ({"image": "web:1", "routes": [{"path_prefix": "/a\r\nX: y"}]}, "routes.0.path_prefix", 'start with "/"'),
        ({"image": "web:1", "volumes": ["/etc:/etc"]}, "volumes.0.source", "SLUICE_HOST_ROOTS"),
        ({"image": "web:1", "volumes": ["../etc:/etc"]}, "volumes.0.source", "absolute"),
        ({"image": "web:1", "networks": ["nowhere"]}, "networks", "nowhere"),
        ({"image": "web:1", "max_surge": 0}, "max_surge", "max_surge"),
    ],
)  # fmt: skip
def test_invalid_field_is_named_and_nothing_is_stored(
    harness: SubmitterHarness, fields: dict[str, Any], field: str, says: str
) -> None:
    async def scenario() -> None:
        refusal = await refused(harness.deploy(**fields))
        assert (refusal.status, refusal.code) == (422, "invalid_spec")
        assert refusal.errors[0].field == field
        assert says in refusal.errors[0].message
        with harness.store.read_session() as session:
            assert not session.exec(select(Deployment)).all() and not session.exec(select(Service)).all()
        assert harness.hints == []

    run(scenario)


def test_null_of_a_known_field_removes_it_and_any_other_null_is_refused(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        spec: dict[str, Any] = {"image": "web:1", "user": "app", "environment": {"A": "1"}, "healthcheck": {"path": "/"}}
        harness.complete_deployment(await harness.deploy(**spec), spec)
        nulls: dict[str, Any] = {
            "user": None,
            "environment": {"A": None, "B": None},
            "healthcheck": {"path": None},
            "port": None,
        }
        await harness.deploy(**nulls, profiles={"unknown": None})
        modes: tuple[MergeMode, ...] = ("merge", "replace")
        for mode in modes:
            request = DeployRequest("web", {"image": "web:1", "user": None, "nonsense": None}, mode=mode)
            refusal = await refused(harness.submit(commands.deploy(request)))
            assert [error.field for error in refusal.errors] == ["nonsense"], mode

    run(scenario)


@pytest.mark.parametrize("name", ["", "Web", "1web", "a/b", "..", "web\n", "a" * 41, "web-", "wéb"])
def test_service_name_that_is_no_dns_label_is_refused(harness: SubmitterHarness, name: str) -> None:
    async def scenario() -> None:
        refusal = await refused(harness.deploy(service=name, image="web:1"))
        assert (refusal.status, refusal.errors[0].field) == (422, "service")

    run(scenario)


def test_idempotency_key_returns_same_deployment_and_refuses_other_body(harness: SubmitterHarness) -> None:
    def call(fingerprint: str) -> RequestContext:
        return RequestContext(CI.by, IdempotencyClaim(token=1, key="run-1", fingerprint=fingerprint))

    async def scenario() -> None:
        first = await harness.deploy(call=call("a"), image="web:1")
        assert await harness.deploy(call=call("a"), image="web:1") == first
        refusal = await refused(harness.deploy(call=call("b"), image="web:2"))
        assert (refusal.status, refusal.code) == (422, "idempotency_key_reused")

    run(scenario)


def test_pending_deployment_is_superseded_by_newer_one(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        first, second = await harness.deploy(image="web:1"), await harness.deploy(image="web:2")
        row = harness.row(first)
        assert (row.status, row.reason, row.superseded_by) == ("superseded", "newer_revision", second)

    run(scenario)


def test_on_conflict_reject_refuses_and_queue_waits(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        first = await harness.deploy(image="web:1")
        refusal = await refused(harness.deploy(image="web:2", on_conflict="reject"))
        assert (refusal.status, refusal.code) == (409, "deployment_in_progress")
        second = await harness.deploy(image="web:2", on_conflict="queue")
        assert (harness.row(first).status, harness.row(second).status) == ("pending", "pending")

    run(scenario)


def test_expected_revision_other_than_current_conflicts(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        harness.complete_deployment(await harness.deploy(image="web:1"), {"image": "web:1"})
        refusal = await refused(
            harness.submit(commands.deploy(DeployRequest("web", {"image": "web:2"}, expected_revision=7)))
        )
        assert (refusal.status, refusal.code) == (409, "revision_conflict")
        await harness.submit(commands.deploy(DeployRequest("web", {"image": "web:2"}, expected_revision=1)))

    run(scenario)


def test_expected_revision_zero_conflicts_with_existing_or_pending_service(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        new = DeployRequest("web", {"image": "web:1"}, expected_revision=0)
        first = await harness.submit(commands.deploy(new))
        refusal = await refused(harness.submit(commands.deploy(new)))
        assert (refusal.status, refusal.code) == (409, "revision_conflict")
        assert "it exists" in refusal.detail and harness.row(first).status == "pending"
        harness.complete_deployment(first, {"image": "web:1"})
        assert (await refused(harness.submit(commands.deploy(new)))).code == "revision_conflict"

    run(scenario)


def test_image_only_deployment_keeps_replicas_of_service(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        harness.complete_deployment(await harness.deploy(image="web:1", replicas=4), {"image": "web:1"})
        assert harness.row(await harness.deploy(image="web:2")).replicas == 4

    run(scenario)


def test_writable_volume_limits_service_to_one_instance_unless_shared(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        alone, shared = {"source": "db", "target": "/data"}, {"source": "db", "target": "/data", "shared": True}
        refusal = await refused(harness.deploy(image="web:1", volumes=[alone], replicas=2))
        assert refusal.errors[0].field == "replicas"
        assert "shared: true" in refusal.errors[0].message
        harness.complete_deployment(
            await harness.deploy(image="web:1", volumes=[alone]), {"image": "web:1", "volumes": [alone]}
        )
        assert (await refused(harness.submit(commands.scale("web", 2)))).errors[0].field == "replicas"
        await harness.submit(commands.scale("web", 0))
        await harness.deploy(service="other", image="web:1", volumes=[shared], replicas=2)

    run(scenario)


def test_route_of_another_service_is_refused_with_its_name(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        route = {"host": None, "path_prefix": "/shop", "strip_prefix": False}
        harness.complete_deployment(
            await harness.deploy(image="web:1", routes=[route]), {"image": "web:1", "routes": [route]}
        )
        refusal = await refused(harness.deploy(service="other", image="web:1", routes=[{"path_prefix": "/shop/"}]))
        assert refusal.errors[0].field == "routes.0"
        assert '"web"' in refusal.errors[0].message

    run(scenario)


def test_actions_on_unknown_service_or_deployment_are_refused(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        for command in (commands.scale("no", 2), commands.restart("no"), commands.remove("no")):
            refusal = await refused(harness.submit(command))
            assert (refusal.status, refusal.code) == (404, "unknown_service")
        refusal = await refused(harness.submit(commands.retry(Deployment(id=9, service="no", kind="deploy", created_at=0))))
        assert (refusal.status, refusal.code) == (404, "unknown_deployment")

    run(scenario)


def test_rollback_selects_newest_earlier_revision_that_served(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        harness.complete_deployment(await harness.deploy(image="web:1"), {"image": "web:1"}, 1)
        assert (await refused(harness.submit(commands.rollback("web", None)))).code == "no_rollback_target"
        harness.complete_deployment(await harness.deploy(image="web:2"), {"image": "web:2"}, 2)
        assert harness.row(await harness.submit(commands.rollback("web", None))).revision == 1
        refusal = await refused(harness.submit(commands.rollback("web", 9)))
        assert (refusal.code, refusal.errors[0].message) == ("unknown_revision", "must be one of 2, 1")

    run(scenario)


def test_action_refused_in_status_names_status_and_allowed_actions(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        id = await harness.deploy(image="web:1")
        refusal = await refused(harness.requests.apply_action(id, "pause", CI.by))
        assert (refusal.status, refusal.code) == (409, "not_in_that_state")
        assert "pending" in refusal.detail and "abort" in refusal.detail
        await harness.requests.apply_action(id, "abort", CI.by)
        assert (harness.row(id).status, harness.row(id).reason) == ("aborted", "user")
        again = await harness.submit(commands.retry(harness.row(id)))
        assert (harness.row(again).retry_of, harness.row(again).image) == (id, "web:1")

    run(scenario)


def test_deployment_ids_continue_above_highest_id_of_containers(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        with harness.store.write_session() as session:
            session.add(Meta(key="deployment_floor", value="40"))
        assert await harness.deploy(image="web:1") == 41

    run(scenario)


def test_pull_credentials_stay_in_memory(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        id = await harness.deploy(call=RequestContext(CI.by, registry_auth="c2VjcmV0"), image="web:1")
        assert harness.credentials.get(id) == "c2VjcmV0"
        assert "c2VjcmV0" not in repr(harness.credentials)
        assert b"c2VjcmV0" not in b"".join(path.read_bytes() for path in harness.path.iterdir() if path.is_file())

    run(scenario)


def test_pull_credentials_are_dropped_with_deployment_that_will_not_pull(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        secret = RequestContext(CI.by, registry_auth="c2VjcmV0")
        await harness.deploy(call=secret, image="web:1")
        aborted = await harness.deploy("api", secret, image="web:1")
        superseding = await harness.deploy(call=secret, image="web:2")
        assert harness.credentials.deployments() == {aborted, superseding}
        await harness.requests.apply_action(aborted, "abort", CI.by)
        assert harness.credentials.deployments() == {superseding}

    run(scenario)


def test_cancelled_request_does_not_drop_pull_credentials_of_another_before_its_commit(
    harness: SubmitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_commit, put = threading.Event(), harness.credentials.put

    async def scenario() -> None:
        is_put, loop = asyncio.Event(), asyncio.get_running_loop()

        def put_and_wait(id: int, credentials: str | None) -> None:
            put(id, credentials)
            loop.call_soon_threadsafe(is_put.set)
            assert may_commit.wait(20)

        monkeypatch.setattr(harness.credentials, "put", put_and_wait)
        submitted = asyncio.create_task(harness.deploy(call=RequestContext(CI.by, registry_auth="c2VjcmV0"), image="web:1"))
        await is_put.wait()
        other = asyncio.create_task(harness.deploy("api", image="web:1"))
        await asyncio.sleep(0)
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        may_commit.set()
        assert harness.credentials.get(await submitted) == "c2VjcmV0"

    run(scenario)


def test_deployment_does_not_inherit_pull_credentials_of_failed_transaction_with_its_id(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        harness.credentials.put(1, "c2VjcmV0")
        id = await harness.deploy(image="web:1")
        assert (id, harness.credentials.get(id)) == (1, None)

    run(scenario)


def test_idempotency_key_returns_deployment_after_removal_of_network(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        harness.engine.networks.add("db")
        keyed = RequestContext(CI.by, claim=IdempotencyClaim(1, "run-1", "same"))
        first = await harness.deploy(call=keyed, image="web:1", networks=["db"])
        harness.engine.networks.remove("db")
        assert await harness.deploy(call=keyed, image="web:1", networks=["db"]) == first

    run(scenario)


def test_idempotency_key_of_a_retry_is_looked_up_before_the_engine_is_asked(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        harness.engine.networks.add("db")
        failed = await harness.deploy(image="web:1", networks=["db"])
        await harness.requests.apply_action(failed, "abort", CI.by)
        keyed = RequestContext(CI.by, claim=IdempotencyClaim(1, "run-1", "same"))
        again = commands.retry(harness.row(failed))
        first = await harness.submit(again, keyed)
        harness.engine.fail_next("networks_exist", EngineError("no answer", transient=True))
        assert await harness.submit(again, keyed) == first
        assert (await refused(harness.submit(again))).status == 503, "without the key the engine is asked"

    run(scenario)


def test_networks_cannot_be_checked_while_engine_does_not_answer(harness: SubmitterHarness) -> None:
    async def scenario() -> None:
        harness.engine.fail_next("networks_exist", EngineError("no answer", transient=True))
        assert (await refused(harness.deploy(image="web:1", networks=["db"]))).status == 503

    run(scenario)
