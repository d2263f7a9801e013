"""The demonstration: a real Envoy, an upstream that echoes, a client that sends any bytes."""
