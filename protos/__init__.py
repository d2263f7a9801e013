"""The wire contract with Envoy: our own .proto files and the modules generated from them.

Packages, messages and field numbers are Envoy's, so full names and bytes are the same as in Envoy's own files; the
comments, and the choice of what is declared, are ours. Only a service's `wire.py` and its composition root import
these modules. After a change of a .proto file: `protos/generate`.
"""
