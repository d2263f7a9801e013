"""The shape of what users write: the section `ratelimit` of edgekeeper.yaml, and the files of limits.

The files are envoyproxy/ratelimit's as they are (its src/config/config.go). Pure: no I/O, no clock.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, WithJsonSchema, model_validator

from edgekeeper.config import Bytes, Duration, Many, Model, Place, mistake_at
from edgekeeper.service import Section
from ratelimit.limit import MAX_REQUESTS

__all__ = [
    "CaseConfig",
    "DescriptorConfig",
    "LimitsFile",
    "MemorySection",
    "RateLimitConfig",
    "RatelimitSection",
    "ReplacesConfig",
    "StepConfig",
    "StoreSection",
    "TestsFile",
]

LEAST_MEMORY: Final = 1 << 20


class MemorySection(Model):
    """Counters in the process itself: fast and exact, not shared, gone at its end."""

    max_bytes: Bytes = Field(default=64 << 20, ge=LEAST_MEMORY)
    """Memory for counters, at least `1MiB`, default `64MiB` (about 150000 counters). When it is full, expired counters
    go first, then those with something left, those that are used up last; the metric
    `edgekeeper_ratelimit_evictions_total` counts the last two."""


class StoreSection(Model):
    """Where the counters are."""

    memory: MemorySection = Field(default_factory=MemorySection)
    """In the process itself, which is the only store of this edition."""

    @property
    def shared(self) -> bool:
        """Whether all processes count together; the memory store is each process's own."""
        return False


class RatelimitSection(Section):
    """The rate limit service."""

    limits: Many[Place] = Field(min_length=1)
    """Files of limits, and directories whose `.yaml` and `.yml` files are read. Beside them, `NAME_test.yaml` holds
    tests: limits for which one of them fails are not accepted."""

    store: StoreSection = Field(default_factory=StoreSection)
    """Where the counters are. Default: in memory."""

    merge_domains: bool = False
    """Whether several files may configure one domain (the reference's MERGE_DOMAIN_CONFIG). Default false: an error."""

    shadow_mode: bool = False
    """Whether every request passes, whatever its limits say; statuses and metrics still tell (SHADOW_MODE).
    Default false."""

    quota_mode: bool = False
    """Whether every descriptor is a quota rule: a request is refused only when all of its descriptors are over
    (QUOTA_MODE). A descriptor without a limit is never over, so it lets its request pass. Default false."""

    near_limit_ratio: float = Field(default=0.8, ge=0.0, le=1.0)
    """The share of a limit above which hits are counted as `near_limit`, 0 to 1, default 0.8 (NEAR_LIMIT_RATIO)."""

    response_dynamic_metadata: bool = False
    """Whether an answer carries the request's descriptors, the `metadata` of the rules that let it pass and the name of
    the `generation` that judged it, for Envoy's dynamic metadata (RESPONSE_DYNAMIC_METADATA). Default false."""

    @model_validator(mode="after")
    def _workers_share_a_store(self) -> Self:
        if self.workers > 1 and not self.store.shared:
            raise mistake_at(
                "workers",
                "each process would count by itself in the memory store, and every limit be that much higher;"
                " workers above 1 need a store that they share: use Redis",
            )
        return self


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
    """second, minute, hour, day, week, month (30 days) or year (365 days), in any case. Windows are aligned to the
    epoch. Needed unless `unlimited`."""

    requests_per_unit: int = Field(default=0, ge=0, le=MAX_REQUESTS)
    """What one window lets pass, 0 to 4294967295. Default 0: nothing."""

    unlimited: bool = False
    """Whether there is no limit here. Default false. Takes no `unit`."""

    name: Scalar = ""
    """Goes out with the limit (`current_limit.name`), and is what `replaces` refers to. Default: none."""

    replaces: Many[ReplacesConfig] = ()
    """Rules that do not count in a request in which this one matches."""


class DescriptorConfig(Model):
    """A node of the tree of limits."""

    key: Scalar = Field(min_length=1)
    """The entry's key. `*` stands for any characters."""

    value: Scalar = ""
    """The entry's value; `*` stands for any characters. Default: any value, each with a counter of its own."""

    rate_limit: RateLimitConfig | None = None
    """The limit for descriptors that end here. Default: none, what ends here is not limited."""

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

    metadata: dict[str, Any] = Field(default_factory=dict)
    """Goes into the dynamic metadata of requests that this rule lets pass, with `response_dynamic_metadata`. Numbers
    become doubles; nested at most 16 deep. Default: none."""


class LimitsFile(Model):
    """A file of limits."""

    domain: Scalar = Field(min_length=1)
    """The name space, as Envoy's filter names it. One file a domain unless `merge_domains`."""

    descriptors: Many[DescriptorConfig] = ()
    """The nodes for the first entry of a descriptor."""


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
    """The time until the window of each descriptor ends, `0s` where nothing limits. Default: not looked at."""


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
