"""The registry that others ask: Eureka's protocol for unchanged clients (../shared/facts/eureka.md)."""
