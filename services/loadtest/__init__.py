"""Load generator that records every request, for `sluice loadtest`, demos, tests and benchmarks."""
