"""Real Redis servers for tests and benchmarks, and what goes wrong between them and us. Root: used by tests only."""
