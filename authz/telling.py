"""An explanation as people read it: what, by whom and why first, then each rule's word, then the exact answer.

Takes the plain data, so that a running service's is told in the same way. What a request holds cannot move a terminal's
cursor. Pure: no I/O, no clock.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from edgekeeper.printable import shown

__all__ = ["Style", "lines", "shown"]

Style = Callable[[str, str], str]
"""Gives a text its look: `good`, `bad`, `strong`, `dim` or none in particular."""

_MANY: Final = 12
"""More rules than these whose paths do not fit are counted, not told."""

_REASONS: Final[Mapping[str, str]] = {
    "credentials.missing": "no rule allows it without a credential, and the request carries none",
    "credentials.invalid": "the credential is no good",
    "credentials.ambiguous": "the request carries more than one credential",
    "credentials.expired": "the credential is expired",
    "scope.missing": "no rule allows it with the scopes that the credential has",
    "default": "no rule matched, and what no rule allows is denied",
    "no_policy": "no policy is for this host",
    "policy.error": "a rule could not be judged, and a doubt denies",
    "provider.no_keys": "the keys that would judge the token are not there",
    "request.path_not_canonical": "the path can be read in more than one way",
    "request.bad_host": "the host is none",
    "request.no_path": "the request has no path",
    "request.too_large": "the target is too long, or has too many parameters",
    "request.not_http": "it is no request that rules can be asked about",
}


def _plain(text: str, _look: str) -> str:
    return text


def lines(told: Mapping[str, Any], *, style: Style = _plain, every: bool = False) -> Iterator[str]:
    """Yield the lines that tell `told` (`authz.asked.told`); with `every` also each rule whose paths do not fit."""
    yield from _verdict(told, style)
    yield ""
    yield from _about(told)
    for title, notes in _tables(told):
        yield ""
        yield style(title, "strong")
        yield from _notes(notes, style, effect=told["effect"], every=every)
    if told["other_rules"]:
        yield style(f"     and {told['other_rules']} more rules whose paths do not fit", "dim")
    yield ""
    yield from _answer(told, style)


# -- the verdict ------------------------------------------------------------------------------------------------------


def _verdict(told: Mapping[str, Any], style: Style) -> Iterator[str]:
    allows = told["effect"] == "allow"
    word = "ALLOW" if allows else f"DENY {told['answer']['status']}"
    by = f"{told['policy']} / {told['rule']}" if told["rule"] else told["policy"]
    by = f" by {by}" if by else ""
    reason = f": {told['reason']}" if told["reason"] != "rule" else ""
    yield style(word, "good" if allows else "bad") + style(shown(by + reason), "strong")
    why = _why(told)
    if why:
        yield f"  {why}"
    if not told["rule"] and (nearest := _nearest(told["rules"])) is not None:
        clause = (
            f"`{nearest['outcome']}`: {_short(nearest['because'])}"
            if nearest["because"]
            else nearest["outcome"]
        )
        yield f"  nearest is `{nearest['rule']}`, which would allow it but for {clause}"
    if not allows and told["answer"]["envoy_decides"]:
        yield "  Envoy is told that there is no decision (`cannot_decide: error`): its `failure_mode_allow` decides"


_CLAUSES: Final = ("client_ips", "headers", "query", "identity", "scopes", "when")
"""The clauses behind methods and paths, in the order in which they are looked at."""


def _nearest(notes: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the rule that would have allowed but for its last clauses; None: none has that path and method."""
    near = [
        note
        for note in notes
        if note["effect"] == "allow" and note["mode"] == "enforce" and note["outcome"] in _CLAUSES
    ]
    return max(near, key=lambda note: _CLAUSES.index(note["outcome"]), default=None)


def _why(told: Mapping[str, Any]) -> str:
    if told["rule"] == "mode:shadow":
        would = told["shadow"][-1]
        effect = "deny" if would["effect"] == "deny" else "allow"
        return f"the policy is in shadow and lets it pass; enforced, it would {effect} it ({shown(would['reason'])})"
    if told["effect"] == "allow":
        return ""
    reason = _REASONS.get(told["reason"], "")
    detail = "" if told["detail"] in reason else shown(told["detail"])
    return f"{reason}: {detail}" if reason and detail else reason or detail


def _about(told: Mapping[str, Any]) -> Iterator[str]:
    request, host = told["request"], told["host"]
    yield f"request    {shown(request['method'])} {shown(request['host'])} {shown(request['path']) or '(no path)'}"
    if host["policy"]:
        named = f", named by the route (its host is {host['name']})" if host["by"] == "route" else ""
        mode = " (shadow)" if host["mode"] == "shadow" else ""
        yield f"policy     {host['policy']}{mode}{named}"
    elif host["name"]:
        yield f"policy     none for {'this route' if host['by'] == 'route' else shown(host['name'])}"
    if told["refused_before_rules"]:
        yield "identity   not looked at: refused before any rule was looked at"
        return
    yield f"identity   {_identity(told['identity'])}"


def _identity(identity: Mapping[str, Any]) -> str:
    if not identity["asked"]:
        return "not looked at: nothing that was reached needs it"
    if not identity["kind"]:
        return f"{identity['refusal']}: {shown(identity['detail'])}"
    parts = [identity["kind"]]
    parts += [f"{name}={shown(identity[name])}" for name in ("subject", "tenant") if identity[name]]
    if identity["scopes"]:
        parts.append(f"scopes={shown(' '.join(identity['scopes']))}")
    return "  ".join(parts)


# -- the rules --------------------------------------------------------------------------------------------------------


def _tables(told: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Yield the notes of each document with its title, guardrails first."""
    for kind, notes in (("guardrail", told["guardrails"]), ("policy", told["rules"])):
        for name in dict.fromkeys(note["document"] for note in notes):
            yield f"{kind} {name}", [note for note in notes if note["document"] == name]


def _notes(notes: Sequence[Mapping[str, Any]], style: Style, *, effect: str, every: bool) -> Iterator[str]:
    strangers = [note for note in notes if note["outcome"] == "paths"]
    if len(strangers) > _MANY and not every:
        notes = [note for note in notes if note["outcome"] != "paths"]
    width = max((len(note["rule"]) for note in notes), default=0)
    for note in notes:
        mark, look = _mark(note, effect)
        word, because = _outcome(note)
        yield style(
            f"  {mark} {note['rule']:{width}}  {note['effect']:5}  {word:14}  {because}".rstrip(), look
        )
    if len(strangers) > _MANY and not every:
        yield style(f"     and {len(strangers)} rules whose paths do not fit (--all names them)", "dim")


def _mark(note: Mapping[str, Any], effect: str) -> tuple[str, str]:
    if note["decides"]:
        return "=>", "good" if effect == "allow" else "bad"
    if note["outcome"] == "matched":
        return " ~", "strong"
    return "  ", "dim" if note["outcome"] in {"paths", "not reached"} else ""


def _outcome(note: Mapping[str, Any]) -> tuple[str, str]:
    """Return what became of a rule in a word, the clause that failed or none, and more of it."""
    because = _short(note["because"])
    if note["mode"] == "shadow":
        because = f"{because} (in shadow: without effect)".lstrip()
    if note["outcome"] in {"matched", "error"}:
        return {"matched": "matches", "error": "error"}[note["outcome"]], because
    return note["outcome"] if note["outcome"] == "not reached" else f"no: {note['outcome']}", because


def _short(text: str) -> str:
    text = shown(" ".join(text.split()))
    return text if len(text) <= 100 else f"{text[:97]}..."


# -- the answer -------------------------------------------------------------------------------------------------------


def _answer(told: Mapping[str, Any], style: Style) -> Iterator[str]:
    answer = told["answer"]
    if told["effect"] == "allow":
        yield style("answer     the request goes on to the upstream", "strong")
        changes = list(_changes(answer))
        yield from changes or ["  as it came"]
    else:
        yield style(f"answer     {answer['status']} to the client", "strong")
        yield from (f"  {shown(name)}: {shown(value)}" for name, value in answer["headers"].items())
        yield from (f"  | {shown(line)}" for line in answer["body"].splitlines())
    names = sorted(told["metadata"])
    told_already = {"policy", "rule", "effect", "reason", "kind", "subject", "tenant", "shadow"}
    more = [f"{name}={shown(told['metadata'][name])}" for name in names if name not in told_already]
    yield style("metadata   ", "strong") + " ".join(more)


def _changes(answer: Mapping[str, Any]) -> Iterator[str]:
    yield from _rows("set", (f"{name}: {value}" for name, value in answer["request_headers"].items()))
    yield from _rows("remove", answer["request_headers_removed"])
    yield from _rows("query set", (f"{name}={value}" for name, value in answer["query"].items()))
    yield from _rows("query remove", answer["query_removed"])
    yield from _rows(
        "response set", (f"{name}: {value}" for name, value in answer["response_headers"].items())
    )
    yield from _rows("response add", (f"{name}: {value}" for name, value in answer["response_headers_added"]))


def _rows(what: str, values: Iterable[str]) -> Iterator[str]:
    return (f"  {what:12}  {shown(value)}" for value in values)
