"""The composition root: sinks from the section, the service around them. Root."""

import secrets
from typing import Final

from accesslog import wire
from accesslog.cli import commands
from accesslog.config import AccesslogSection
from accesslog.config import Sink as SinkModel
from accesslog.generation import Recording, build
from accesslog.service import AccessLog
from accesslog.sinks import Sink
from accesslog.sinks.stdout import StdoutSink
from edgekeeper.records import Records
from edgekeeper.service import Runtime, Service, Snapshot

__all__ = ["SERVICE"]


def _sink(model: SinkModel, runtime: Runtime) -> Sink:
    if model.file is None:
        return StdoutSink()
    return Records(model.file.path, rotate=model.file.rotate, clock=runtime.clock, log=runtime.log)


def _application(section: AccesslogSection, runtime: Runtime, snapshot: Snapshot[Recording]) -> AccessLog:
    sinks = {model.name: _sink(model, runtime) for model in section.sinks}
    return AccessLog(sinks, runtime, snapshot, instance=secrets.token_hex(6))


SERVICE: Final = Service(
    name="accesslog",
    section=AccesslogSection,
    grpc_services=(wire.SERVICE,),
    build=build,
    application=_application,
    commands=commands,
)

if __name__ == "__main__":
    from edgekeeper.process import main

    main(SERVICE)
