"""The shape of the files of limits and of the tests beside them.

The files are envoyproxy/ratelimit's as they are (its src/config/config.go), and more keys, all of which may be left out.
Pure: no I/O, no clock.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from edgekeeper.config import Duration, Many, Model, mistake_at
from ratelimit.headers import name_mistake, value_mistake
from ratelimit.limit import MAX_REQUESTS

__all__ = [
    "BodyConfig",
    "CaseConfig",
    "DenyConfig",
    "DescriptorConfig",
    "IpPrefixConfig",
    "LimitsFile",
    "RateLimitConfig",
    "ReplacesConfig",
    "StepConfig",
    "TestsFile",
]

MAX_BODY_BYTES: Final = 16_384
"""The longest body of a refusal: each refusal carries it."""

LONGEST_WINDOW_US: Final = 36_500 * 86_400 * 1_000_000
"""100 years: two windows and the time since 1970 are an integer that a double holds."""


def _header(name: str) -> str:
    if mistake := name_mistake(name):
        raise ValueError(mistake)
    return name


def _header_value(text: str) -> str:
    if mistake := value_mistake(text):
        raise ValueError(mistake)
    return text


Scalar = Annotated[
    str, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}]})
]
"""Text that may be written as a number or a boolean; it is taken as it stands in the file (`007` stays `007`)."""


class ReplacesConfig(Model):
    """A reference to other rules by their name."""

    name: Scalar
    """The `name` of the rules that do not count when this one matches. Not empty, not this rule's own."""


class RateLimitConfig(Model):
    """So many requests in each window."""

    unit: Scalar | None = None
    """second, minute, hour, day, week, month (30 days) or year (365 days), in any case. Fixed and sliding windows are
    aligned to the epoch. Needed, or `window`, unless `unlimited`."""

    unit_multiplier: int = Field(default=1, ge=1, le=MAX_REQUESTS)
    """How many units the window has, 1 to 4294967295 and no more than 100 years, default 1. Not with `window`."""

    window: Duration | None = Field(default=None, ge=1000, le=LONGEST_WINDOW_US)
    """The window in place of `unit`: `10s`, 1 ms to 36500 d. One as long as a unit is reported to Envoy as that unit, any
    other as `UNKNOWN`, for which Envoy writes no window into its headers. Default: the `unit`."""

    requests_per_unit: int = Field(default=0, ge=0, le=MAX_REQUESTS)
    """What one window lets pass, 0 to 4294967295. Default 0: nothing."""

    algorithm: Literal["fixed_window", "sliding_window", "token_bucket"] = "fixed_window"
    """How it counts, default `fixed_window`. `sliding_window` counts the part of the window before that is not yet a
    window ago, too, as if its hits were spread evenly; `token_bucket` refills steadily, `requests_per_unit` tokens in
    each window."""

    burst: int | None = Field(default=None, ge=1, le=MAX_REQUESTS)
    """What a full bucket holds: the most that passes at once, 1 to 4294967295. `token_bucket` only. Default:
    `requests_per_unit`."""

    unlimited: bool = False
    """Whether there is no limit here. Default false. Takes no `unit` and nothing else that describes a limit; not one
    of several `limits`."""

    name: Scalar = ""
    """Goes out with the limit (`current_limit.name`), and is what `replaces` refers to. Default: none."""

    replaces: Many[ReplacesConfig] = ()
    """Rules that do not count in a request in which this one matches."""


class IpPrefixConfig(Model):
    """How much of an address counts: all addresses of one network share a counter."""

    v4: int = Field(default=32, ge=0, le=32)
    """The bits of an IPv4 address, 0 to 32, default 32: each by itself. IPv4 in IPv6 (`::ffff:192.0.2.1`) is IPv4."""

    v6: int = Field(default=64, ge=0, le=128)
    """The bits of an IPv6 address, 0 to 128, default 64: what one household or host is given."""


class BodyConfig(Model):
    """The body of a refusal: exactly one of `json` and `text`, at most 16384 bytes."""

    json_: dict[str, Any] | None = Field(default=None, alias="json")
    """A JSON object, sent as `application/json`."""

    text: str | None = None
    """Text, sent as `text/plain; charset=utf-8`."""

    @model_validator(mode="after")
    def _one(self) -> "BodyConfig":
        if (self.json_ is None) == (self.text is None):
            raise ValueError("exactly one of `json`, `text` is needed")
        return self


class DenyConfig(Model):
    """What the caller gets with a refusal. The status is that of Envoy's filter (`rate_limited_status`, 429)."""

    headers: dict[
        Annotated[str, AfterValidator(_header)],
        Annotated[Scalar, AfterValidator(_header_value)],
    ] = Field(default={}, max_length=50)
    """Headers of the response, name to value; a `content-type` here wins over the body's own. At most 50. Default
    none."""

    body: BodyConfig | None = None
    """The body of the response. Default: Envoy's own, which is empty."""

    @model_validator(mode="after")
    def _something(self) -> "DenyConfig":
        if not self.headers and self.body is None:
            raise ValueError("`headers` or `body` is needed")
        if len({name.lower() for name in self.headers}) < len(self.headers):
            raise mistake_at("headers", "a name stands twice: upper and lower case are the same")
        return self


class DescriptorConfig(Model):
    """A node of the tree of limits."""

    key: Scalar = Field(min_length=1)
    """The entry's key. `*` stands for any characters."""

    value: Scalar = ""
    """The entry's value; `*` stands for any characters. Default: any value, each with a counter of its own."""

    rate_limit: RateLimitConfig | None = None
    """The limit for descriptors that end here. Default: none, what ends here is not limited."""

    limits: Many[RateLimitConfig] = Field(default=(), min_length=1)
    """Several limits in place of `rate_limit`: a request takes from all of them or from none, and is told of the one with
    the least left. No two of one window and algorithm. Default: the one in `rate_limit`."""

    descriptors: Many["DescriptorConfig"] = ()
    """The nodes for the next entry."""

    shadow_mode: bool = False
    """Whether the rule only counts and never refuses. Default false."""

    quota_mode: bool = False
    """Whether a request is refused only when all of its quota rules are over. Default false."""

    detailed_metric: bool = False
    """Whether the metrics of this rule show the request's own keys and values (1000 of them, then the rule's own
    label). Default false."""

    value_to_metric: bool = False
    """Whether the metrics of the rules at and below this node show the request's own value of this entry. Bounded
    like `detailed_metric`. Default false."""

    share_threshold: bool = False
    """Whether all values that the `*` of this node matches share one counter. Default false. Needs a `*`."""

    ip_prefix: IpPrefixConfig | None = None
    """The networks by which addresses in this entry's value are counted, here and below. A value that is no address is
    counted as it is. Needs a node that many values find. Default: each value by itself."""

    on_store_error: Literal["allow", "deny", "local"] | None = None
    """What becomes of requests under this rule when the store cannot tell: `allow` lets them pass, `deny` refuses them,
    `local` lets this process count by itself with its share of the limit. Default: the section's `on_store_error`."""

    deny: DenyConfig | None = None
    """What goes with a refusal by this rule. Default: nothing."""

    metadata: dict[str, Any] = Field(default_factory=dict)
    """Goes into the dynamic metadata of requests that this rule lets pass, with `response_dynamic_metadata`. Numbers
    become doubles; nested at most 16 deep. Default: none."""


class LimitsFile(Model):
    """A file of limits."""

    domain: Scalar = Field(min_length=1)
    """The name space, as Envoy's filter names it. One file a domain unless `merge_domains`."""

    descriptors: Many[DescriptorConfig] = ()
    """The nodes for the first entry of a descriptor."""

    all_or_nothing: bool = False
    """Whether a refused request takes from none of the limits of its descriptors. Default false: each descriptor that
    passes takes from its own."""

    together: Scalar | None = Field(default=None, min_length=1)
    """With `all_or_nothing`: the key of the entry whose value says which descriptors are judged together; one without
    the entry is judged alone. It keeps what is judged together in one place of a Redis cluster, where it is needed.
    Default: all descriptors of a request."""


class StepConfig(Model):
    """A request, and what becomes of it."""

    at: Duration
    """When it comes, from the start of the case; no earlier than the one before. Windows begin at `0s`. Needed."""

    descriptors: Many[dict[str, str]] = Field(min_length=1)
    """The descriptors, each as its entries in their order. At least one."""

    hits: int = Field(default=1, ge=-MAX_REQUESTS, le=MAX_REQUESTS)
    """The hits of each descriptor. 0 looks, a negative number gives back. Default 1."""

    want: Many[Literal["ok", "over_limit", "none"]]
    """What is answered for each descriptor; `none`: nothing limits it. Needed."""

    remaining: Many[int] | None = None
    """What is left for each descriptor, 0 where nothing limits. Default: not looked at."""

    reset: Many[Duration] | None = None
    """The time until the counter of each descriptor is as new: a fixed window ends, a sliding one is forgotten, a bucket
    is full; `0s` where nothing limits. Default: not looked at."""


class CaseConfig(Model):
    """Requests in their order, with counters of their own."""

    name: str = Field(min_length=1)
    """What comes true, as a sentence. Needed."""

    trace: Many[StepConfig] = Field(min_length=1)
    """The requests. At least one."""


class TestsFile(Model):
    """Tests of limits, in a file `NAME_test.yaml`."""

    domain: str = Field(min_length=1)
    """The domain that the requests are for. Needed."""

    cases: Many[CaseConfig] = Field(min_length=1)
    """The tests. At least one."""
