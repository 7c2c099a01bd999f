"""The buffer of a build's log while the build writes it."""

from __future__ import annotations

from services.builds.log import LONGEST_LINE, MOST_LOG, LogBuffer


def test_log_lines_are_numbered_and_oldest_are_dropped_beyond_limit() -> None:
    log = LogBuffer()
    for number in range(1, 101):
        log.write(f"{number} ".ljust(LONGEST_LINE, "x") + " too long")
    retained = MOST_LOG // (LONGEST_LINE + 1)
    assert log.first == 101 - retained
    assert len(str(log).encode()) <= MOST_LOG
    assert [number for number, _ in log.after(98)] == [99, 100]
    assert [line.split()[0] for _, line in log.after(98)] == ["99", "100"]
    assert len(log.after(0)) == retained and log.after(0)[0][0] == log.first
    assert log.after(100) == []


def test_log_reader_is_notified_of_new_line() -> None:
    log = LogBuffer()
    woken = log.news.wait()
    log.write("progress 1 %\rprogress 100 %\r")
    assert woken.is_set() and log.after(0) == [(1, "progress 1 % progress 100 %")]
