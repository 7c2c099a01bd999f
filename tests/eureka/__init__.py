"""The Eureka registry without its port."""
