"""The Eureka port: Netflix's protocol for unchanged clients (docs/eureka.md)."""
