"""Metrics of Sluice for Prometheus: the counters of this process, and families read from the store at each scrape."""
