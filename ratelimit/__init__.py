"""Global rate limiting: has this caller had enough? (`envoy.service.ratelimit.v3.RateLimitService`)."""
