"""Eureka registry: Netflix's discovery protocol for unmodified clients."""
