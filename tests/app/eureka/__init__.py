"""The Eureka port, asked as clients ask."""
