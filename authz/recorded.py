"""One decision of the log: its record, the rule in the generation that decided, and what of the reasons is shown.

Edge: reads logs and the history of generations.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import yaml

from authz import documents, wire
from authz.config import AuthzSection
from authz.decision import SHADOW_RULE
from authz.log_files import files_of, found
from authz.policy import Policies
from authz.replay import watched
from authz.retold import Verdict, decided_again, verdict_of
from edgekeeper.errors import ConfigError, OperatorError
from edgekeeper.history import History
from edgekeeper.printable import shown
from edgekeeper.settings import Settings
from edgekeeper.sources import Record, RecordedSources
from edgekeeper.yaml import Document, parse

__all__ = ["lines", "recorded"]

_KINDS: Final = ("Policy", "Guardrail")
_MOST_TEXT: Final = 200


def recorded(settings: Settings, section: AuthzSection, decision_id: str) -> dict[str, Any] | None:
    """Return what is known of a decision, as JSON has it; None: no file of the log holds it.

    `record` is its line, `log` the file; `rules` the rules by document that had a word in it, each with `file`, `line`
    and `text` as it was written then; `trace` what each rule that was reached said, as far as the line shows it; `notes`
    what cannot be shown, in sentences.

    Raises:
        OperatorError: Operator error: there is no decision log, or it cannot be read.
    """
    if section.decision_log is None:
        raise OperatorError(
            "the configuration has no `authz.decision_log`: decisions are not written anywhere"
        )
    for file in files_of(section.decision_log.file.path):
        record = found(file, decision_id)
        if record is not None:
            return _told(settings, section, record, file)
    return None


def _told(settings: Settings, section: AuthzSection, record: dict[str, Any], file: str) -> dict[str, Any]:
    generation = str(record.get("authz.policy.revision", ""))
    told: dict[str, Any] = {
        "record": record, "log": file, "generation": generation, "rules": [], "trace": [], "notes": []
    }  # fmt: skip
    history = History(settings.state / "authz")
    kept = history.record(generation)
    if kept is None:
        names = ", ".join(history.generations()) or "none"
        told["notes"].append(
            f"generation {generation or '(none)'} is not kept (those that are: {names}): its rules cannot be shown"
        )
        return told
    try:
        before = verdict_of(record)
    except _NOT_OURS:
        told["notes"].append(_UNREADABLE)
        return told
    told["rules"] = list(_rules(kept, before, {entry.path for entry in section.policies}))
    if not _decider(before):
        told["notes"].append(
            "no rule decided: the request was refused before, or no rule of the policy matched"
        )
    _retrace(section, kept, record, told)
    return told


def _decider(verdict: Verdict) -> str:
    """Return the rule that decided, or would have if its policy were not in shadow; empty: none."""
    would = verdict.shadow[-1][1] if verdict.shadow else ""
    return would if verdict.rule == SHADOW_RULE else verdict.rule


_NOT_OURS: Final = (AttributeError, KeyError, TypeError, ValueError)
_UNREADABLE: Final = "the record cannot be read: it is not as we write it"


def _retrace(section: AuthzSection, kept: Record, record: Mapping[str, Any], told: dict[str, Any]) -> None:
    """Add what the rules of that generation say to what the line shows."""
    policies = _policies(section, kept, told["generation"])
    if policies is None:
        told["notes"].append(
            "edgekeeper.yaml is not what it was: the rules cannot be tried on what the log shows"
        )
        return

    def trace(document: str, rule: str, failed: str) -> None:
        told["trace"].append({"document": document, "rule": rule, "outcome": failed or "matched"})

    try:
        before, again = verdict_of(record), decided_again(watched(policies), record, trace)
    except _NOT_OURS:
        told["notes"].append(_UNREADABLE)
        return
    if again.verdict is None:
        told["notes"].append(f"the log does not show all that the decision depends on: {again.missing}")
    elif again.verdict != before:
        told["notes"].append("what the log shows leads to another decision: something else must have counted")


def _policies(section: AuthzSection, kept: Record, generation: str) -> Policies | None:
    """Return the generation as it was; None: the present section does not lead to it."""
    try:
        policies = documents.load(section, RecordedSources(kept), wire.answer)
    except ConfigError:
        return None
    return policies if policies.generation == generation else None


# -- the text of a rule -----------------------------------------------------------------------------------------------


def _rules(kept: Record, verdict: Verdict, named_files: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the rules that the line names, those in shadow after the one that decided.

    `named_files` may hold documents whatever their names end in.
    """
    named = [(verdict.policy, verdict.rule), *((policy, rule) for policy, rule, *_ in verdict.shadow)]
    wanted = [(policy, rule) for policy, rule in dict.fromkeys(named) if rule not in {"", SHADOW_RULE}]
    texts: dict[tuple[str, str], dict[str, Any]] = {}
    for file, content in kept.files.items():
        if wanted and (file.endswith((".yaml", ".yml")) or file in named_files):
            texts |= {(each["document"], each["rule"]): each for each in _of_file(file, content, wanted)}
    yield from (texts[each] for each in wanted if each in texts)


def _of_file(file: str, content: bytes, wanted: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    try:
        read, text = parse(content, file), content.decode().splitlines()
    except (ConfigError, UnicodeDecodeError):
        return
    for document in read:
        for index, name, rule in _rules_of(document):
            node = document.node(("spec", "rules", index))
            if (name, rule) in wanted and node is not None:
                yield {"document": name, "rule": rule, "file": file, **_lines_of(node, text)}


def _rules_of(document: Document) -> Iterator[tuple[int, str, str]]:
    """Yield index, document and id of each rule."""
    value = document.value
    if not isinstance(value, dict) or value.get("kind") not in _KINDS:
        return
    name = value["metadata"]["name"]
    for index, rule in enumerate(value["spec"]["rules"]):
        yield index, name, rule["id"]


def _lines_of(node: yaml.Node, text: list[str]) -> dict[str, Any]:
    """Return where the node begins, and its lines without their common indent."""
    first, last = node.start_mark.line, node.end_mark.line
    if (
        node.end_mark.column == 0
        or not text[last : last + 1]
        or not text[last][: node.end_mark.column].strip(" -")
    ):
        last -= 1  # a block ends where the next begins
    kept = text[first : min(last + 1, first + _MOST_TEXT)]
    while kept and not kept[-1].strip():
        kept.pop()
    indent = len(kept[0]) - len(kept[0].lstrip(" "))
    return {
        "line": first + 1,
        "text": "\n".join(each[min(indent, len(each) - len(each.lstrip(" "))) :] for each in kept),
    }


# -- for people -------------------------------------------------------------------------------------------------------


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield what `recorded` found as text, in which nothing that clients sent moves a terminal's cursor."""
    return map(shown, _lines(told))


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    record = told["record"]
    by = " / ".join(
        str(each) for each in (record.get("authz.policy.name"), record.get("authz.policy.rule")) if each
    )
    effect, reason, at = (record.get(each, "?") for each in ("authz.decision", "authz.reason", "timestamp"))
    yield f"{effect} by {by or 'no policy'}: {reason}"
    yield f"  at {at}, generation {told['generation']}, logged in {told['log']}"
    for name, value in record.items():
        if name not in _SAID:
            yield f"  {name}: {_shown(value)}"
    for rule in told["rules"]:
        yield f"{rule['file']}:{rule['line']}: rule `{rule['rule']}` of `{rule['document']}`, as it was then"
        yield from (f"  | {line}" for line in rule["text"].splitlines())
    if told["trace"]:
        yield "what the rules say to what the log shows:"
    for each in told["trace"]:
        said = "matched" if each["outcome"] == "matched" else f"no match: {each['outcome']}"
        yield f"  rule {each['document']} / {each['rule']}: {said}"
    yield from (f"note: {note}" for note in told["notes"])


_SAID: Final = frozenset(
    {
        "schema", "event.name", "timestamp", "authz.decision", "authz.reason", "authz.policy.name",
        "authz.policy.rule", "authz.policy.revision",
    }
)  # fmt: skip


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_shown(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return str(value)
