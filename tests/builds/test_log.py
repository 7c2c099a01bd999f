"""The buffer of a build's log while the build writes it."""

from __future__ import annotations

from services.builds.log import MAX_LINE_CHARS, MAX_LOG_BYTES, LogBuffer


def test_log_lines_are_numbered_and_oldest_are_dropped_beyond_limit() -> None:
    log = LogBuffer()
    for number in range(1, 101):
        log.write(f"{number} ".ljust(MAX_LINE_CHARS, "x") + " too long")
    retained = MAX_LOG_BYTES // (MAX_LINE_CHARS + 1)
    assert log.first == 101 - retained
    assert len(str(log).encode()) <= MAX_LOG_BYTES
    assert [number for number, _ in log.after(98)] == [99, 100]
    assert [line.split()[0] for _, line in log.after(98)] == ["99", "100"]
    assert len(log.after(0)) == retained and log.after(0)[0][0] == log.first
    assert log.after(100) == []


def test_log_reader_is_notified_of_new_line() -> None:
    log = LogBuffer()
    woken = log.lines_changed.wait()
    log.write("progress 1 %\rprogress 100 %\r")
    assert woken.is_set() and log.after(0) == [(1, "progress 1 % progress 100 %")]
