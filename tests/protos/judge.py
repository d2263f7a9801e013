"""Run by the judge's own Python: say what Envoy's published protos declare.

    .venv/judge/bin/python -I tests/protos/judge.py MODULE ...

Writes a google.protobuf.FileDescriptorSet with the files of the modules and all that they import, imports first.
"""

import importlib
import sys

from google.protobuf import descriptor_pb2


def add(file, files):
    if any(file.name == known.name for known in files.file):
        return
    for imported in file.dependencies:
        add(imported, files)
    file.CopyToProto(files.file.add())


def main(modules):
    files = descriptor_pb2.FileDescriptorSet()
    for module in modules:
        add(importlib.import_module(module).DESCRIPTOR, files)
    sys.stdout.buffer.write(files.SerializeToString())


main(sys.argv[1:])
