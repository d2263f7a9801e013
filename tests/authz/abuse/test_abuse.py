"""Abuse: each class catches a fault that is put into our own code, and is silent without it."""

from dataclasses import replace
from urllib.parse import unquote

import pytest

import authz.abuse
import authz.addressing
import authz.attempts
import authz.identity.api_keys
import authz.identity.mtls
import authz.identity.tokens
from authz.abuse import CREDENTIALS
from authz.attributes import Attributes
from authz.callers import changed
from authz.canonical import STRICT, PathRules
from authz.identity import Identity, Outcome
from authz.identity.credentials import Place
from authz.matchers import Values
from authz.plans import AllowPlan
from authz.spellings import CLASSES


def test_without_a_fault_no_class_finds_anything(abused):
    assert [] == abused()


# -- faults in our own code ---------------------------------------------------------------------------------------------


def segments(change):
    """Put `change(target, rules) -> (target, rules)` before the real function, or segments that it makes itself."""
    real = authz.addressing.segments_of

    def faulty(target, rules=STRICT):
        made = change(target, rules)
        return made if not isinstance(made[0], str) else real(*made)

    return lambda patch: patch.setattr(authz.addressing, "segments_of", faulty)


def literally(target, rules):
    """No path is refused."""
    parts = tuple(target.partition("?")[0][1:].split("/"))
    return parts, parts


def with_query(target, rules):
    parts = tuple(target[1:].split("/"))
    return parts, parts


def decoded(target, rules):
    """Decodes before it splits, and takes the step up for a name."""
    return literally(unquote(target), rules)


def keeps_slashes(target, rules):
    return target, PathRules("keep", rules.double_slash, rules.semicolon)


def keeps_double(target, rules):
    return target, PathRules(rules.encoded_slash, "keep", rules.semicolon)


def keeps_semicolon(target, rules):
    return target, PathRules(rules.encoded_slash, rules.double_slash, "keep")


def case_sensitive_hosts(patch):
    patch.setattr(authz.addressing, "host_of", lambda text: (text.partition(":")[0], None))


def last_of_userinfo(patch):
    real = authz.addressing.host_of
    patch.setattr(authz.addressing, "host_of", lambda text: real(text.rpartition(",")[2].rpartition("@")[2]))


def forwarded_host(patch):
    real = authz.attempts.decide

    def faulty(policies, request, **more):
        host = request.header("x-forwarded-host")
        return real(policies, changed(request, host=host) if host else request, **more)

    patch.setattr(authz.attempts, "decide", faulty)


def first_value_counts(patch):
    real = Values.match
    patch.setattr(
        Values, "match", lambda self, given: real(self, {name: values[:1] for name, values in given.items()})
    )


def lists_are_one_value(patch):
    patch.setattr("authz.matchers._parts", lambda value: [value])


def twins_are_ignored(patch):
    patch.setattr(Attributes, "twins", property(lambda self: self.headers))


def spoofed_twins_stay(patch):
    patch.setattr(AllowPlan, "_spelled", lambda self, *_: ())


def nothing_is_removed(patch):
    real = AllowPlan.answer

    def faulty(self, context):
        answer = real(self, context)
        return type(answer)(
            **{name: getattr(answer, name) for name in ("set", "response_set", "response_add")}
        )

    patch.setattr(AllowPlan, "answer", faulty)


def connection_is_not_read(patch):
    patch.setattr(authz.addressing, "_strips_trusted", lambda *_: False)


def credentials(change):
    def put(patch):
        for module in (authz.identity.tokens, authz.identity.api_keys):
            real = module.credentials
            patch.setattr(
                module, "credentials", lambda place, request, real=real: change(real, place, request)
            )

    return put


def second_place(real, place, request):
    return real(place, request) or real(Place(query="access_token"), request)


def other_header(real, place, request):
    return real(place, request) or real(Place(header="x-forwarded-access-token"), request)


def any_scheme(real, place, request):
    return real(place, request) or (place.header and real(replace(place, prefix="Token"), request)) or ()


def twin_header(real, place, request):
    name = (place.header or "").replace("-", "_")
    return real(place, request) or (name and real(replace(place, header=name), request)) or ()


def first_wins(real, place, request):
    if place.header is not None and len(request.headers.get(place.header, ())) > 1:
        first = {**request.headers, place.header: request.headers[place.header][:1]}
        return real(place, changed(request, headers=first))
    return real(place, request)


def scheme_as_written(real, place, request):
    lines = request.headers.get(place.header or "", ())
    return real(place, request) if not place.prefix or any(place.prefix in line for line in lines) else ()


def two_spaces_are_none(real, place, request):
    return [each for each in real(place, request) if each and not each.startswith(" ")]


def joined_are_none(real, place, request):
    found = real(place, request)
    return () if len(found) > 1 else found


def xfcc_is_believed(patch):
    real = authz.identity.mtls.MtlsSource.outcome

    def faulty(self, request, now_us, keys, cache):
        line = request.header("x-forwarded-client-cert")
        if line is None:
            return real(self, request, now_us, keys, cache)
        return Outcome("mtls", identity=Identity("mtls", subject=line.removeprefix("URI=")))

    patch.setattr(authz.identity.mtls.MtlsSource, "outcome", faulty)


def overrides(read):
    def put(patch):
        real = authz.attempts.decide

        def faulty(policies, request, **more):
            method = read(request)
            return real(policies, changed(request, method=method) if method else request, **more)

        patch.setattr(authz.attempts, "decide", faulty)

    return put


FAULTS = {
    "the path is taken literally": ("path spelling", segments(literally)),
    "the path is decoded before it is split": ("path spelling", segments(decoded)),
    "the query is part of the path": ("path spelling", segments(with_query)),
    "an encoded slash is no slash": ("path spelling", segments(keeps_slashes)),
    "a double slash makes an empty segment": ("path spelling", segments(keeps_double)),
    "parameters are part of their segment": ("path spelling", segments(keeps_semicolon)),
    "hosts are case-sensitive": ("host spelling", case_sensitive_hosts),
    "the host is what follows an @ or a comma": ("host spelling", last_of_userinfo),
    "the host is that of x-forwarded-host": ("host spelling", forwarded_host),
    "the first line of a header counts": ("header duplication", first_value_counts),
    "a joined list is one value": ("header duplication", lists_are_one_value),
    "twins of a denial's headers are ignored": ("header duplication", twins_are_ignored),
    "the first value of a parameter counts": ("query duplication", first_value_counts),
    "twins of trusted headers reach the upstream": ("trusted headers", spoofed_twins_stay),
    "trusted headers are not removed": ("trusted headers", nothing_is_removed),
    "the connection header is not read": ("connection header", connection_is_not_read),
    "a parameter is a second place": (CREDENTIALS, credentials(second_place)),
    "another header is a second place": (CREDENTIALS, credentials(other_header)),
    "any scheme is good": (CREDENTIALS, credentials(any_scheme)),
    "the twin of a header is a place": (CREDENTIALS, credentials(twin_header)),
    "the first of two credentials counts": (CREDENTIALS, credentials(first_wins)),
    "the scheme is case-sensitive": (CREDENTIALS, credentials(scheme_as_written)),
    "a credential behind two spaces is none": (CREDENTIALS, credentials(two_spaces_are_none)),
    "two credentials are none": (CREDENTIALS, credentials(joined_are_none)),
    "x-forwarded-client-cert is believed": (CREDENTIALS, xfcc_is_believed),
    "a header overrides the method": ("method override", overrides(lambda r: r.header("x-http-method-override"))),
    "a parameter overrides the method": ("method override", overrides(lambda r: (r.query.get("_method") or [""])[0])),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_class_catches_the_fault(abused, monkeypatch, name):
    kind, fault = FAULTS[name]
    only(monkeypatch, kind)
    fault(monkeypatch)
    assert [kind] == sorted({found for found, *_ in abused()})


def only(monkeypatch, kind):
    """Leave the other classes out: this is about one, and each costs time."""
    monkeypatch.setattr(
        authz.abuse, "CLASSES", {name: spell for name, spell in CLASSES.items() if name == kind}
    )
    if kind != CREDENTIALS:
        monkeypatch.setattr(authz.abuse, "placements", lambda *_: ())
        monkeypatch.setattr(authz.abuse, "loosely", lambda *_: ())


def test_every_class_has_a_fault_that_it_catches():
    assert {*CLASSES, CREDENTIALS} == {kind for kind, _ in FAULTS.values()}


def test_callers_of_a_provider_whose_keys_are_fetched_carry_a_credential_too(abused, monkeypatch):
    def found():
        cases = [abused.case("GET /me/1", "allow", "alice"), abused.case("GET /me/1", "deny")]
        fetched = {"algorithms": ["ES256"], "keys": {"url": "https://idp.example.com/keys"}}
        return abused(cases, abused.policy, abused.alone("alice"), **fetched)

    only(monkeypatch, CREDENTIALS)
    assert [] == found()
    credentials(second_place)(monkeypatch)
    assert {CREDENTIALS} == {kind for kind, *_ in found()}


def test_a_case_at_another_time_has_a_credential_of_that_time(abused, monkeypatch):
    only(monkeypatch, CREDENTIALS)
    scheme = credentials(
        lambda real, place, request: real(place, request) or real(Place(query="token"), request)
    )
    scheme(monkeypatch)
    own = [abused.case("GET /me/1", "deny", "alice", now="2031-01-01T00:00:00Z")]
    rules = abused.policy.replace(
        "{id: no-debug",
        "{id: no-alice, paths: [/me/1], when: '!(\"token\" in request.query)', deny: {}}\n    - {id: no-debug",
    )
    assert {CREDENTIALS} == {kind for kind, *_ in abused(own, rules, abused.alone("alice"))}


def test_a_bad_credential_is_not_shown(abused, monkeypatch):
    credentials(two_spaces_are_none)(monkeypatch)
    found = abused([abused.case("GET /other", "deny", headers={"authorization": "Bearer s3cret"})])
    assert [CREDENTIALS] == [kind for kind, *_ in found]
    assert "s3cret" not in found[0][2]
