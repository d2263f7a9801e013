"""The process shell that authz, ratelimit and accesslog share. It imports no service and knows no Envoy API."""
