"""The shape of the section `authz` of edgekeeper.yaml. The documents that it leads to are in `authz.models`.

Pure: no I/O, no clock.
"""

from typing import Literal

from pydantic import Field, field_validator

from authz.canonical import HostPattern
from edgekeeper.config import Many, Model, Place
from edgekeeper.service import Section

__all__ = ["KINDS", "AuthzSection", "Kind", "PolicyEntry"]

Kind = Literal["Policy", "Guardrail", "JwtProvider"]

KINDS: tuple[Kind, ...] = ("Policy", "Guardrail", "JwtProvider")


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


class AuthzSection(Section):
    """External authorization."""

    policies: Many[PolicyEntry] = Field(min_length=1)
    """Where the policy documents are, and what each place may hold. At least one."""

    cannot_decide: Literal["deny_503", "error"] = "deny_503"
    """The answer when no decision can be made (overload, a provider without keys). Default `deny_503`: an explicit denial.

    `error`: Envoy is told so (`error_response`), and its `failure_mode_allow` decides; with that on, it lets through.
    """

    decision_log: None = None
    """Always null in this edition: decisions are seen in the metadata, the metrics and the access log."""
