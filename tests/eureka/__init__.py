"""The registry, without its port."""
