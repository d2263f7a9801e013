"""Files that envoyproxy/ratelimit does not load, and some that it does: we refuse and take the same."""

import pytest
import yaml

from edgekeeper.errors import ConfigError
from edgekeeper.yaml import parse
from ratelimit.documents import domains


def load(*texts: str, merge: bool = False) -> None:
    documents = [only for number, text in enumerate(texts) for only in parse(text.encode(), f"{number}.yaml")]
    domains(documents, merge_domains=merge)


D = "domain: d\ndescriptors:\n"

BAD: list[tuple[str, str, list[str]]] = [
    # the reference's sentence, ours, the files
    ("error loading config file", "not YAML", ["domain: ["]),
    ("error loading config file", "expected a mapping, got a list", ["- domain: d"]),
    ("error loading config file", "expected a list, got a mapping", ["domain: d\ndescriptors: {key: a}"]),
    ("error loading config file", "expected a mapping, got text", [f"{D}- {{key: a, rate_limit: day}}"]),
    ("error loading config file", "expected text, got a list", [f"{D}- {{key: a, value: []}}"]),
    ("error loading config file", "must be at least 0", [f"{D}- {{key: a, rate_limit: {{unit: day, requests_per_unit: -1}}}}"]),
    ("error loading config file", "must be at most 4294967295", [f"{D}- {{key: a, rate_limit: {{unit: day, requests_per_unit: 4294967296}}}}"]),
    ("error loading config file", "expected an integer, got text", [f"{D}- {{key: a, rate_limit: {{unit: day, requests_per_unit: many}}}}"]),
    ("config error, key is not of type string", "unknown field", ["domain: d\n1: x"]),
    ("config error, unknown key 'ratelimit'", "unknown field `ratelimit`; did you mean `rate_limit`?", [f"{D}- {{key: a, ratelimit: {{}}}}"]),
    ("config error, unknown key 'foo'", "unknown field `foo`", ["domain: d\nfoo: 1"]),
    ("config error, unknown key 'foo'", "unknown field `foo`", [f"{D}- {{key: a, rate_limit: {{unit: day, foo: 1}}}}"]),
    ("config error, unknown key 'foo'", "unknown field `foo`", [f"{D}- {{key: a, descriptors: [{{key: b, foo: ~}}]}}"]),
    ("config error, yaml file contains list of type other than map", "expected a mapping, got text", [f"{D}- a"]),
    ("config error, yaml file contains list of type other than map", "expected a mapping, got text", [f"{D}- {{key: a, rate_limit: {{unit: day, replaces: [b]}}}}"]),
    ("error checking config", "expected text, got a number", [f"{D}- {{key: a, value: 1.5}}"]),
    ("error checking config", "expected an integer, got a number", [f"{D}- {{key: a, rate_limit: {{unit: day, requests_per_unit: 1.5}}}}"]),
    ("config file cannot have empty domain", "missing field `domain`", ["descriptors: []"]),
    ("config file cannot have empty domain", "needs at least 1 character", ["domain: ''"]),
    ("config file cannot have empty domain", "missing field `domain`", ["domain:"]),
    ("duplicate domain 'd' in config file", "duplicate `domain`", ["domain: d", "domain: d"]),
    ("descriptor has empty key", "missing field `descriptors[0].key`", [f"{D}- {{value: a}}"]),
    ("descriptor has empty key", "needs at least 1 character", [f"{D}- {{key: ''}}"]),
    ("descriptor has empty key", "missing field", [f"{D}- {{key: a, descriptors: [{{key: ~}}]}}"]),
    ("duplicate descriptor composite key 'd.a'", "duplicate descriptor", [f"{D}- {{key: a}}\n- {{key: a}}"]),
    ("duplicate descriptor composite key 'd.a_b'", "duplicate descriptor", [f"{D}- {{key: a, value: b}}\n- {{key: a_b}}"]),
    ("duplicate descriptor composite key 'd.a.b_1'", "duplicate descriptor", [f"{D}- {{key: a, descriptors: [{{key: b, value: 1}}, {{key: b, value: '1'}}]}}"]),
    ("invalid rate limit unit 'None'", "missing field `unit`", [f"{D}- {{key: a, rate_limit: {{requests_per_unit: 1}}}}"]),
    ("invalid rate limit unit 'fortnight'", "not a unit of time", [f"{D}- {{key: a, rate_limit: {{unit: fortnight}}}}"]),
    ("invalid rate limit unit 'unknown'", "not a unit of time", [f"{D}- {{key: a, rate_limit: {{unit: unknown}}}}"]),
    ("invalid rate limit unit ''", "not a unit of time", [f"{D}- {{key: a, rate_limit: {{unit: ''}}}}"]),
    ("should not specify rate limit unit when unlimited", "`unlimited` takes no `unit`", [f"{D}- {{key: a, rate_limit: {{unlimited: true, unit: day}}}}"]),
    ("should not have an empty replaces entry", "empty `name`", [f"{D}- {{key: a, rate_limit: {{unit: day, replaces: [{{name: ''}}]}}}}"]),
    ("should not have an empty replaces entry", "missing field", [f"{D}- {{key: a, rate_limit: {{unit: day, replaces: [{{}}]}}}}"]),
    ("replaces should not contain name of same descriptor", "a rule cannot replace itself", [f"{D}- {{key: a, rate_limit: {{unit: day, name: x, replaces: [{{name: x}}]}}}}"]),
    ("share_threshold can only be used with wildcard", "`share_threshold` needs a `*`", [f"{D}- {{key: a, value: b, share_threshold: true}}"]),
    ("share_threshold can only be used with wildcard", "`share_threshold` needs a `*`", [f"{D}- {{key: a, share_threshold: true}}"]),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours", "files"), BAD)
def test_a_file_that_the_reference_refuses_is_refused(reference, load_error, theirs, ours, files):
    try:
        plain = [yaml.safe_load(text) for text in files]
    except yaml.YAMLError:
        said = "error loading config file"
    else:
        with pytest.raises(load_error) as refused:
            reference(*plain)
        said = str(refused.value)
    assert said.startswith(theirs)
    with pytest.raises(ConfigError) as caught:
        load(*files)
    assert any(ours in str(problem) for problem in caught.value.problems)


GOOD = [
    "domain: d",
    "domain: 7\ndescriptors: []",
    "domain: d\ndescriptors:",
    f"{D}- {{key: a, value: 007, shadow_mode: true, quota_mode: false, detailed_metric: true}}",
    f"{D}- {{key: true, value: no, rate_limit: {{unit: DAY, requests_per_unit: 4294967295}}}}",
    f"{D}- {{key: a, value: ~, rate_limit: ~, descriptors: ~, metadata: {{a: [1.5, x, {{b: c}}]}}}}",
    f"{D}- {{key: a, value: ''}}\n- {{key: a, value: '*'}}\n- {{key: a*}}\n- {{key: A}}",
    f"{D}- {{key: a, rate_limit: {{unlimited: true, requests_per_unit: 5, name: n, replaces: [{{name: m}}]}}}}",
    f"{D}- {{key: a, rate_limit: {{unlimited: true, unit: unknown}}}}\n- {{key: b, rate_limit: {{unlimited: true, unit: ''}}}}",
    f"{D}- {{key: a, rate_limit: {{unit: Second}}, descriptors: [{{key: a, rate_limit: {{unit: yEaR, replaces: []}}}}]}}",
    f"{D}- {{key: a, value: 'x*y', share_threshold: true, value_to_metric: true}}",
    f"{D}- {{key: a, rate_limit: &l {{unit: week, requests_per_unit: 1}}}}\n- {{key: b, rate_limit: {{<<: *l}}}}",
]


@pytest.mark.parametrize("file", GOOD)
def test_a_file_that_the_reference_takes_is_taken(reference, file):
    reference(yaml.safe_load(file))
    load(file)


def test_domains_are_merged_as_there(reference, load_error):
    one, other, again = f"{D}- {{key: a}}", f"{D}- {{key: b}}", f"{D}- {{key: a}}"
    reference(*map(yaml.safe_load, (one, other)), merge=True)
    load(one, other, merge=True)
    with pytest.raises(load_error, match="duplicate descriptor composite key"):
        reference(*map(yaml.safe_load, (one, again)), merge=True)
    with pytest.raises(ConfigError, match="duplicate descriptor"):
        load(one, again, merge=True)


# What it takes silently and we do not, as the key would do nothing where it stands: told in docs/ratelimit.md.
MISPLACED = [
    f"{D}- {{key: a, name: n}}",
    "domain: d\nunit: day",
    f"{D}- {{key: a, rate_limit: {{unit: day, shadow_mode: true}}}}",
]


@pytest.mark.parametrize("file", MISPLACED)
def test_a_known_key_at_a_wrong_place_is_refused_which_the_reference_passes_over(reference, file):
    reference(yaml.safe_load(file))
    with pytest.raises(ConfigError, match="unknown field"):
        load(file)
