"""The Eureka port as clients use it."""
