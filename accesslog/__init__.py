"""The access-log sink: what Envoy says happened, one line of NDJSON an entry, its secrets masked."""
