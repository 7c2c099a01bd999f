"""Metrics of Sluice for Prometheus: process counters, and families read from the store at a scrape."""
