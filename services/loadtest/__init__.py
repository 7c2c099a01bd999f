"""A load that keeps count of every request: what `sluice loadtest` sends, and the demos, the tests and the measurements."""
