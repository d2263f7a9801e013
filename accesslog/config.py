"""The `accesslog` section of edgekeeper.yaml. Pure: no I/O, no clock."""

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from edgekeeper.config import Many, Model, Place, exactly_one
from edgekeeper.rotation import Rotate
from edgekeeper.service import Section

__all__ = ["DEFAULT_NAMESPACES", "AccesslogSection", "FileSink", "Redact", "Rotate", "Sink", "StdoutSink"]

DEFAULT_NAMESPACES: Final = ("envoy.filters.http.ext_authz", "envoy.filters.http.ratelimit")

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")]
ParameterName = Annotated[str, Field(min_length=1, max_length=128)]
Namespace = Annotated[str, Field(min_length=1, max_length=256)]


class FileSink(Model):
    """Appends to a file, mode 0640; several workers may share it. One that was renamed, removed or cut (logrotate) is
    noticed at the next write, on SIGHUP at once.
    """

    path: Place
    """The file. Its directory is made (mode 0750) when it is missing. While the file cannot be written, 8 MiB of
    lines wait; what comes then is dropped and counted in `edgekeeper_accesslog_sink_dropped_total`."""

    rotate: Rotate | None = Field(default_factory=Rotate)
    """When the file is moved aside, and how many of these are KEPT. Default: at 256MiB and at midnight UTC, 7 of them,
    zstd; null: never, which leaves it to logrotate."""


class StdoutSink(Model):
    """Writes to standard output. A reader that does not read stops the intake: Envoy keeps, then drops, entries. Of
    several workers, lines longer than 4 KiB can stand in one another; a file has no such limit.
    """


class Sink(Model):
    """Where records go: a name and exactly one kind."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """The sink's name in metrics and `/readyz`: 1 to 63 of `a-z 0-9 _ -`. No two sinks share one."""

    file: FileSink | None = None
    """Appends to a file. Default: none."""

    stdout: StdoutSink | None = None
    """Writes to standard output (`stdout: {}`). Default: none."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Sink":
        exactly_one(self, ["file", "stdout"])
        return self

    def destination(self) -> str:
        """Return what it writes to, equal for two sinks that would write to the same thing."""
        return f"file {self.file.path}" if self.file is not None else "standard output"


class Redact(Model):
    """What is masked besides the defaults, which are always on."""

    headers: Many[HeaderName] = Field(default=(), max_length=256)
    """More request, response and trailer headers whose value is masked, in any case. Default none, at most 256.
    Custom tags and metadata values of these names are masked too."""

    query: Many[ParameterName] = Field(default=(), max_length=256)
    """More query parameters whose value is masked, in any case, `-` and `_` ignored. Default none, at most 256.
    They are looked for wherever a URL stands, and as names of custom tags and metadata values."""

    client_address: Literal["full", "truncate"] = "full"
    """`full` (default), or `truncate`: client and peer addresses, and those in X-Forwarded-For and its kin, keep
    their network only, /24 of IPv4 and /48 of IPv6."""


class AccesslogSection(Section):
    """The access-log sink."""

    sinks: Many[Sink] = Field(min_length=1, max_length=16)
    """Where records go, each of them to every sink: 1 to 16. Two sinks cannot have one name or one destination."""

    redact: Redact = Field(default_factory=Redact)
    """What is masked besides the defaults."""

    metadata_namespaces: Many[Namespace] = Field(default=DEFAULT_NAMESPACES, max_length=64)
    """The namespaces of dynamic metadata that are copied into records; any other (such as `jwt_authn`, which holds
    personal data) is left out. Default `envoy.filters.http.ext_authz` and `envoy.filters.http.ratelimit`, at most 64."""

    @field_validator("sinks")
    @classmethod
    def _distinct(cls, sinks: tuple[Sink, ...]) -> tuple[Sink, ...]:
        for what, values in (
            ("named", [sink.name for sink in sinks]),
            ("writing to", [sink.destination() for sink in sinks]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"two sinks are {what} `{twice[0]}`")
        return sinks
