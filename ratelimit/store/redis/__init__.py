"""Counters in Redis: what carries a batch of them to a server and its answer back. Edge."""
