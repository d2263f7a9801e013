"""The shape of the section `authz` of edgekeeper.yaml. The documents that it leads to are in `authz.models`.

Pure: no I/O, no clock.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from authz.canonical import HostPattern
from authz.fields import HeaderName
from authz.withheld import is_secret_header, is_secret_name
from edgekeeper.config import Many, Model, Place, mistake_at
from edgekeeper.rotation import Rotate
from edgekeeper.service import Section

__all__ = ["KINDS", "AuthzSection", "DecisionFile", "DecisionLogSection", "Kind", "PolicyEntry"]

Kind = Literal["Policy", "Guardrail", "JwtProvider", "ApiKeySet", "IpSet"]

KINDS: tuple[Kind, ...] = get_args(Kind)


class PolicyEntry(Model):
    """A directory of policy documents, and what they may be: a document outside of these bounds is an error."""

    path: Place
    """A directory (its `.yaml` and `.yml` files at any depth, `*_test.yaml` aside) or one file. Needed."""

    owner: str = Field(default="", max_length=200)
    """Who owns the documents. A document that names another `metadata.owner` is an error. Default empty: any."""

    hosts: Many[str] = ("*",)
    """The hosts that documents here may be for: exact, `*.` and a suffix, or `*`. Default all."""

    kinds: Many[Kind] = KINDS
    """The kinds of documents that may stand here. Default all."""

    @field_validator("hosts")
    @classmethod
    def _hosts_are_patterns(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            HostPattern.parse(host)
        return hosts


def _not_secret(is_secret: Callable[[str], bool]) -> Callable[[str], str]:
    def checked(name: str) -> str:
        if is_secret(name):
            raise ValueError(f"credentials travel under the name `{name}`; no log holds them")
        return name

    return checked


_LoggedHeader = Annotated[HeaderName, AfterValidator(_not_secret(is_secret_header))]
_LoggedName = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_not_secret(is_secret_name))]


class DecisionFile(Model):
    """The file of the decision log, mode 0640; several workers share it. One that was renamed, removed or cut
    (logrotate) is noticed at the next write, on SIGHUP at once.
    """

    path: Place
    """The file. Its directory is made (mode 0750) when it is missing. While the file cannot be written, 8 MiB of
    lines wait; what comes then is dropped and counted in `edgekeeper_authz_decision_log_dropped_total`. Needed."""

    rotate: Rotate | None = Field(default_factory=Rotate)
    """When the file is moved aside, and how many of these are KEPT. Default: at 256MiB and at midnight UTC, 7 of them,
    zstd; null: never, which leaves it to logrotate."""


class DecisionLogSection(Model):
    """The decision log: what was decided and why, for auditors, `explain --decision` and `replay`.

    Denials, errors and what rules in shadow would deny are always in it. Bodies and credentials never are; of headers,
    claims and the query there is what these lists name. The path is, without its query; so is the client's address.
    """

    file: DecisionFile
    """Where the lines go. Needed."""

    sample: int = Field(default=1, ge=1, le=1_000_000)
    """Of the allowances of each rule, the first and then every so many-th are written, 1 to 1000000, default 1: all. A
    line says for how many it stands (`authz.sample_weight`). A line has some 700 bytes before compression. `audit` of
    a rule wins: `none` writes none of its allowances, `always` and `required` each."""

    headers: Many[_LoggedHeader] = Field(default=(), max_length=64)
    """Request headers whose values are written, in lower case; `authorization`, `cookie` and their kin are refused, and
    values that look like a token are masked. Of all others only the names are written. Default none, at most 64."""

    claims: Many[_LoggedName] = Field(default=(), max_length=64)
    """Claims of tokens (`identity.claims`) and attributes of keys (`identity.attr`) whose values are written, by their
    first name. Of all others only the names are. Default none, at most 64."""

    query: Many[_LoggedName] = Field(default=(), max_length=64)
    """Query parameters whose values are written; names are case-sensitive. Default none, at most 64."""

    subject: Literal["hash", "clear", "none"] = "hash"
    """How a caller is named. `hash` (default): the first 32 digits of its SHA-256, in `authz.principal.subject_hash`;
    `clear`: in `enduser.id`; `none`: not at all. Tenant and scopes are always in the clear."""

    subject_key: str | None = Field(default=None, min_length=16, max_length=256)
    """A key for `subject: hash`, 16 to 256 characters, as in `${SUBJECT_KEY}`: HMAC-SHA-256, so that nobody without it
    can try out names. Equal keys give equal hashes on all hosts. Default null: plain SHA-256."""

    @model_validator(mode="after")
    def _key_is_for_hashes(self) -> Self:
        if self.subject_key is not None and self.subject != "hash":
            raise mistake_at("subject_key", "does nothing unless `subject` is `hash`")
        return self


class AuthzSection(Section):
    """External authorization."""

    policies: Many[PolicyEntry] = Field(min_length=1)
    """Where the policy documents are, and what each place may hold. At least one."""

    cannot_decide: Literal["deny_503", "error"] = "deny_503"
    """The answer when no decision can be made (overload, a provider without keys). Default `deny_503`: an explicit denial.

    `error`: Envoy is told so (`error_response`), and its `failure_mode_allow` decides; with that on, it lets through.
    """

    decision_log: DecisionLogSection | None = None
    """Where decisions are written, one JSON line each. Default null: nowhere; they are seen in the metadata, the metrics
    and the access log, and no rule can say `audit: required`."""
