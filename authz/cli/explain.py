"""`edgekeeper authz explain`: why a request is decided as it is, by the files, by what runs, or as it was logged. Root."""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import click

from authz import recorded, telling, wire
from authz.asked import told
from authz.attributes import Attributes
from authz.callers import NotACaller, Vouched, vouched
from authz.canonical import NotCanonical, host_of
from authz.cases import Caller
from authz.curl import of_curl
from authz.evaluate import policy_of
from authz.explain import explain
from authz.key_sets import kept
from authz.policy import Policies
from authz.requests import LOOPBACK, NotARequest, as_json, of_line, of_plain
from authz.sets import time_us
from authz.wire.told import check_request
from edgekeeper.commands import config_option, echo_json, exits, format_option
from edgekeeper.config import Address, address, validated
from edgekeeper.enquiry import ask
from edgekeeper.errors import ConfigError, OperatorError
from edgekeeper.settings import Settings, load
from edgekeeper.sources import DiskSources
from edgekeeper.yaml import only, parse

__all__ = ["command"]

MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024


class _WithCurl(click.Command):
    """Takes the words after `curl`, or after `--`, as they are: curl's options are not ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        taking = {
            name
            for each in self.params
            if isinstance(each, click.Option) and not each.is_flag
            for name in each.opts
        }
        for at, word in enumerate(args):
            if word in {"curl", "--"} and (at == 0 or args[at - 1] not in taking):
                words = args[at + 1 :]
                ctx.meta[_WORDS] = words[1:] if word == "--" and words[:1] == ["curl"] else words
                args = args[:at]
                break
        return super().parse_args(ctx, args)


_WORDS: Final = "authz.curl"


@click.command("explain", cls=_WithCurl)
@click.argument("method", required=False)
@click.argument("url", required=False)
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="NAME: VALUE", help="A request header; repeatable."
)
@click.option("--client-ip", help=f"The address of the connection's peer. Default: {LOOPBACK}.")
@click.option(
    "--request",
    "file",
    metavar="FILE",
    help="The request as JSON, or a CheckRequest, binary or as JSON; - is stdin.",
)
@click.option(
    "--at", metavar="TIME", help="When, as 2026-01-31T12:00:00Z, for tokens and `now`. Default: now."
)
@click.option(
    "--as",
    "caller",
    metavar="CALLER",
    help="Who calls, as already verified and as in tests: '{jwt: {provider: corp, claims: {sub: alice}}}'.",
)
@click.option(
    "--running", is_flag=True, help="Ask the running service, at the configuration's `admin.listen`."
)
@click.option("--admin", metavar="ADDRESS", help="Ask the service that runs at this admin address.")
@click.option("--decision", metavar="ID", help="Show a logged decision instead of a request.")
@click.option(
    "--all", "every", is_flag=True, help="Name every rule, also where many do not fit by their path."
)
@config_option
@format_option
@click.pass_context
def command(ctx: click.Context, /, config: str | None, format_: str, every: bool, **given: Any) -> None:  # noqa: FBT001
    """Decide one request as the service would, and say why: what each rule said, and the exact answer to Envoy.

    The request is METHOD and URL, --request, or what follows the word `curl`. Exits 0 when it is allowed (with
    --decision: was), 1 when it is denied, 2 on bad usage.

    \b
    Example:  edgekeeper authz explain GET https://api.example.com/v1/orders -H 'authorization: Bearer ...'
              edgekeeper authz explain curl -X DELETE https://api.example.com/v1/orders/7 -b sid=1
              edgekeeper authz explain --running --request check.json
    """
    with exits(format_=format_):
        words = ctx.meta.get(_WORDS)
        if given["decision"] is not None:
            if (
                words is not None
                or every
                or any(value not in {None, False, ()} for name, value in given.items() if name != "decision")
            ):
                raise click.UsageError("--decision stands instead of a request, and with no option about one")
            sys.exit(_show_recorded(config, given["decision"], format_))
        try:
            request = _request(words, given)
        except NotARequest as error:
            raise click.UsageError(str(error)) from None
        plain = (
            _asked(config, request, given)
            if given["running"] or given["admin"]
            else _of_files(config, request, given)
        )
        if format_ == "json":
            echo_json(plain)
        else:
            for line in telling.lines(plain, style=_styled, every=every):
                click.echo(line)
        sys.exit(0 if plain["effect"] == "allow" else 1)


# -- the request ------------------------------------------------------------------------------------------------------


def _request(words: list[str] | None, given: Mapping[str, Any]) -> Attributes:
    ways = [given["method"] is not None, given["file"] is not None, words is not None]
    if sum(ways) != 1:
        raise click.UsageError("expected METHOD and URL, or --request, or the word curl and its options")
    client_ip, headers = given["client_ip"], given["headers"]
    if given["file"] is not None:
        if client_ip is not None or headers:
            raise click.UsageError(
                "--client-ip and --header go with METHOD and URL; the request of --request has its own"
            )
        return _of_content(_content(given["file"]))
    if words is not None:
        if headers:
            raise click.UsageError("--header goes behind the word curl")
        found = of_curl(words, LOOPBACK if client_ip is None else client_ip)
        for word in found.not_honoured:
            click.echo(f"edgekeeper: curl's {word} has no effect here", err=True)
        return found.request
    if given["url"] is None:
        raise click.UsageError("URL is missing")
    return of_line(given["method"], given["url"], headers, LOOPBACK if client_ip is None else client_ip)


def _content(file: str) -> bytes:
    try:
        with click.open_file(file, "rb") as stream:
            content: bytes = stream.read(MAX_REQUEST_BYTES + 1)
    except OSError as error:
        raise NotARequest(f"--request: {file} cannot be read: {error.strerror}") from None
    if len(content) > MAX_REQUEST_BYTES:
        raise NotARequest(f"--request: more than {MAX_REQUEST_BYTES} bytes")
    return content


def _of_content(content: bytes) -> Attributes:
    """Return the request of our own JSON, of a CheckRequest's JSON, or of its bytes.

    The bytes of a message may begin as an object does: it is one only if it is JSON.
    """
    try:
        value = json.loads(content) if content.lstrip()[:1] == b"{" else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and "attributes" not in value:
        return of_plain(value)
    try:
        return wire.attributes(check_request(content) if value is not None else content)
    except wire.Malformed as error:
        raise NotARequest(f"--request: {error}, and no JSON object") from None


# -- who decides ------------------------------------------------------------------------------------------------------


def _of_files(config: str | None, request: Attributes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the files say. Tests beside them are not run: one that fails is what one may want to explain."""
    from authz.__main__ import SERVICE

    settings = load(config)
    policies = SERVICE.build(settings.section(SERVICE.name), DiskSources())
    now_us = time.time_ns() // 1000 if given["at"] is None else _time(given["at"])
    keys = kept(settings.state / SERVICE.name, policies, time.time_ns() // 1000)  # --at makes no key older
    outcome = None
    if given["caller"] is not None:
        known = _caller(given["caller"], policies, request, now_us)
        request, outcome = known.dressed(request), known.outcome
    plain = told(explain(policies, request, now_us, keys=keys, outcome=outcome))
    if plain["reason"] == "provider.no_keys":
        click.echo("edgekeeper: no keys are kept here; a running service has its own: --running", err=True)
    return plain


def _caller(text: str, policies: Policies, request: Attributes, now_us: int) -> Vouched:
    """Return the caller, as the policy of the request's host knows such a one."""
    try:
        document = only(parse(text.encode(), "--as"), "--as")
        policy = policy_of(policies, request, host_of(request.host)[0])
        if policy is None:
            raise click.BadParameter(
                "no policy is for this host, so nobody is known there", param_hint="--as"
            )
        return vouched(validated(Caller, document), policy, now_us)
    except NotCanonical:
        raise click.BadParameter(
            "the request has no host, so nobody is known there", param_hint="--as"
        ) from None
    except NotACaller as error:
        raise click.UsageError(str(document.problem(error.loc, str(error), error.hint))) from None
    except ConfigError as error:
        raise click.UsageError("\n".join(map(str, error.problems))) from None


def _time(text: str) -> int:
    try:
        return time_us(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--at") from None


def _asked(config: str | None, request: Attributes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the service that runs says."""
    if given["at"] is not None or given["caller"] is not None:
        raise click.UsageError(
            "--at and --as go with files: what runs has its own clock, and looks at credentials"
        )
    at = _address(given["admin"]) if given["admin"] is not None else load(config).root.admin.listen
    plain: dict[str, Any] = ask(at, "authz", "explain", {"request": as_json(request)})
    return plain


def _address(text: str) -> Address:
    try:
        return address(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--admin") from None


# -- what was decided -------------------------------------------------------------------------------------------------


def _show_recorded(config: str | None, decision_id: str, format_: str) -> int:
    """Print the decision; return the exit status."""
    settings: Settings = load(config)
    found = recorded.recorded(settings, settings.section("authz"), decision_id)
    if found is None:
        raise OperatorError(f"no decision `{telling.shown(decision_id)}` is in the decision log")
    if format_ == "json":
        echo_json(found)
    else:
        for line in recorded.lines(found):
            click.echo(line)
    return 0 if found["record"].get("authz.decision") == "allow" else 1


_LOOKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "good": {"fg": "green", "bold": True},
    "bad": {"fg": "red", "bold": True},
    "strong": {"bold": True},
    "dim": {"dim": True},
    "": {},
}


def _styled(text: str, look: str) -> str:
    return click.style(text, **_LOOKS[look])
