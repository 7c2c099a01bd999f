"""Register, renew, override, cancel: Eureka's rules, and Sluice's deliberate improvements."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.eureka import leases as module
from services.eureka.applications import DELTA_WINDOW, Applications, DeltaAction, Entry, Key, Snapshot
from services.eureka.instance_info import InvalidRegistration, LeaseStatus
from services.eureka.leases import MAX_SWEEP_INTERVAL, TOMBSTONE_SECONDS, LeaseNotFound, Leases
from tests.support.eureka_payloads import registration
from tests.support.fakes.clock import FakeClock

A = ("WEB", "a")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def leases(clock: FakeClock) -> Leases:
    return Leases(clock)


def status(leases: Leases, key: Key = A) -> LeaseStatus:
    entry = leases.applications.get(key)
    assert entry is not None
    return entry.status


def test_renewed_registration_as_up_does_not_undo_a_drain(leases: Leases) -> None:
    leases.register(registration())
    leases.override(A, LeaseStatus.OUT_OF_SERVICE)
    leases.register(registration())
    leases.renew(A)
    assert status(leases) is LeaseStatus.OUT_OF_SERVICE
    leases.remove_override(A, LeaseStatus.UP)
    assert status(leases) is LeaseStatus.UP


def test_metadata_of_all_instances_is_limited(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ALL_METADATA", 20)
    leases.register(registration("a", metadata={"k": "x" * 9}))
    leases.register(registration("b", metadata={"k": "x" * 4}))
    for attempt in (
        lambda: leases.register(registration("c", metadata={"k": "x" * 5})),
        lambda: leases.add_metadata(A, {"more": "xx"}),
    ):
        with pytest.raises(InvalidRegistration, match="metadata of all instances"):
            attempt()
    leases.register(registration("a", metadata={"k": "x" * 14}))
    leases.cancel(A)
    leases.register(registration("c", metadata={"k": "x" * 14}))
    leases.restore(list(leases.applications.entries()))
    leases.cancel(("WEB", "c"))
    leases.register(registration("d", metadata={"k": "x" * 14}))


def test_down_status_reported_by_the_client_takes_precedence_over_an_override(leases: Leases) -> None:
    leases.register(registration())
    leases.override(A, LeaseStatus.OUT_OF_SERVICE)
    leases.register(registration(status="DOWN"))
    assert status(leases) is LeaseStatus.DOWN
    leases.register(registration())
    assert status(leases) is LeaseStatus.OUT_OF_SERVICE


def test_override_removed_without_a_status_requires_a_new_registration(leases: Leases) -> None:
    leases.register(registration())
    leases.override(A, LeaseStatus.OUT_OF_SERVICE)
    leases.remove_override(A)
    with pytest.raises(LeaseNotFound):
        leases.renew(A)
    leases.register(registration())
    assert status(leases) is LeaseStatus.UP


def test_heartbeat_of_an_unknown_or_changed_client_requires_a_registration(leases: Leases) -> None:
    with pytest.raises(LeaseNotFound):
        leases.renew(A)
    leases.register(registration(lastDirtyTimestamp="1000"))
    leases.renew(A, dirty=1000)
    with pytest.raises(LeaseNotFound):
        leases.renew(A, dirty=1001)


def test_older_registration_that_arrives_late_is_ignored(leases: Leases) -> None:
    leases.register(registration(lastDirtyTimestamp=2000, hostName="new"))
    leases.register(registration(lastDirtyTimestamp=1000, hostName="old"))
    entry = leases.applications.get(A)
    assert entry is not None and entry.registration.host == "new"


def test_lease_without_renewal_expires_after_its_duration(leases: Leases, clock: FakeClock) -> None:
    leases.register(registration(leaseInfo={"durationInSecs": 15}))
    leases.sweep()
    for _ in range(3):
        clock.jump(5)
        assert leases.sweep() == []
    clock.jump(1)
    assert leases.sweep() == [A]
    assert leases.applications.get(A) is None


def test_time_in_which_sluice_was_suspended_expires_no_lease(leases: Leases, clock: FakeClock) -> None:
    leases.register(registration(leaseInfo={"durationInSecs": 15}))
    leases.sweep()
    clock.jump(3600)
    assert leases.sweep() == []
    clock.jump(MAX_SWEEP_INTERVAL)
    assert leases.sweep() == [A]


def test_late_registration_of_a_removed_instance_is_ignored(leases: Leases, clock: FakeClock) -> None:
    leases.register(registration())
    leases.evict(A)
    assert leases.register(registration(status="DOWN")) is False
    assert leases.applications.get(A) is None
    clock.jump(TOMBSTONE_SECONDS)
    assert leases.register(registration()) is True


def test_metadata_is_merged_and_bounded(leases: Leases) -> None:
    leases.register(registration(metadata={"zone": "z1"}))
    leases.add_metadata(A, {"weight": "5"})
    entry = leases.applications.get(A)
    assert entry is not None and entry.registration.metadata == {"zone": "z1", "weight": "5"}
    with pytest.raises(InvalidRegistration):
        leases.add_metadata(A, {"k": "\x00"})


def test_hashcode_counts_statuses_in_alphabetical_order(leases: Leases) -> None:
    assert leases.applications.hashcode() == ""
    for id, word in (("a", "UP"), ("b", "UP"), ("c", "OUT_OF_SERVICE"), ("d", "DOWN")):
        leases.register(registration(id, status=word))
    assert leases.applications.hashcode() == "DOWN_1_OUT_OF_SERVICE_1_UP_2_"


def test_replacement_with_the_same_hashcode_appears_in_the_delta(leases: Leases, clock: FakeClock) -> None:
    leases.register(registration("a", metadata={"much": "x" * 500}))
    before = leases.applications.delta(clock.now())
    leases.register(registration("b"))
    leases.cancel(A)
    delta = leases.applications.delta(clock.now())
    assert (delta.hashcode, delta.version > before.version) == (before.hashcode, True)
    assert {entry.registration.id: entry.action for entry in delta.apps["WEB"]} == {
        "a": DeltaAction.DELETED,
        "b": DeltaAction.ADDED,
    }
    assert delta.apps["WEB"][-1].registration.metadata == {}


def test_repeated_registration_is_modified_in_the_delta(leases: Leases, clock: FakeClock) -> None:
    for _ in range(2):
        leases.register(registration())
    assert leases.applications.delta(clock.now()).apps["WEB"][0].action is DeltaAction.MODIFIED
    leases.cancel(A)
    leases.register(registration())
    assert leases.applications.delta(clock.now()).apps["WEB"][0].action is DeltaAction.MODIFIED


class Client:
    """A consumer: one full fetch, then deltas, and a full fetch again if the hashcode differs.

    As in Netflix's DiscoveryClient.getAndUpdateDelta; ADDED is applied as in eureka-js-client.
    """

    def __init__(self) -> None:
        self.has: dict[Key, LeaseStatus] | None = None
        self.full_fetches = 0

    def fetch(self, book: Applications, now: float, *, complete: bool) -> None:
        if self.has is None:
            self._replace(book.full())
            return
        delta = book.delta(now, complete=complete)
        for entry in (entry for entries in delta.apps.values() for entry in entries):
            self._apply(self.has, entry)
        counts = sorted(self.has.values())
        if "".join(f"{s}_{counts.count(s)}_" for s in sorted(set(counts))) != delta.hashcode:
            self.full_fetches += 1
            self._replace(book.full())

    def _apply(self, has: dict[Key, LeaseStatus], entry: Entry) -> None:
        if entry.action is DeltaAction.DELETED:
            has.pop(entry.key, None)
        elif entry.action is DeltaAction.MODIFIED or entry.key not in has:
            has[entry.key] = entry.status

    def _replace(self, full: Snapshot) -> None:
        self.has = {entry.key: entry.status for entries in full.apps.values() for entry in entries}


ids = st.sampled_from(["a", "b", "c", "d"])
words = st.sampled_from(["UP", "DOWN", "OUT_OF_SERVICE", "STARTING"])
operations = st.one_of(
    st.tuples(st.just("register"), ids, words),
    st.tuples(st.just("cancel"), ids, st.none()),
    st.tuples(st.just("override"), ids, words),
    st.tuples(st.just("restore"), ids, words),
    st.tuples(st.just("metadata"), ids, st.none()),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 100, 400]), st.none()),
    st.tuples(st.just("fetch"), st.integers(0, 1), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(operations, max_size=40))
def test_deltas_lead_to_the_same_state_as_a_full_fetch_after_any_history(
    history: list[tuple[str, object, object]],
) -> None:
    clock = FakeClock()
    leases = Leases(clock)
    clients, fetched = [Client(), Client()], [clock.now(), clock.now()]

    def fetch(n: int) -> None:
        clients[n].fetch(leases.applications, clock.now(), complete=clock.now() - fetched[n] < DELTA_WINDOW - 60)
        fetched[n] = clock.now()

    for what, which, word in history:
        key = ("WEB", str(which))
        try:
            if what == "register":
                leases.register(registration(str(which), status=word))
            elif what == "cancel":
                leases.cancel(key)
            elif what == "override":
                leases.override(key, LeaseStatus(str(word)))
            elif what == "restore":
                leases.remove_override(key, LeaseStatus(str(word)))
            elif what == "metadata":
                leases.add_metadata(key, {"k": "v"})
            elif what == "wait":
                clock.jump(float(str(which)))
            else:
                fetch(int(str(which)))
        except LeaseNotFound:
            continue
    for n in (0, 1):
        fetch(n)
        assert clients[n].has == {entry.key: entry.status for entry in leases.applications.entries()}
