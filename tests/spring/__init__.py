"""Real Spring Boot applications, Spring Cloud Gateway and a stock Eureka server (samples/spring)."""
