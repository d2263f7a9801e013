"""The shape of the section `ratelimit` of edgekeeper.yaml. That of the files of limits is in `models`.

Pure: no I/O, no clock.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from edgekeeper.config import Bytes, Many, Model, Place, mistake_at
from edgekeeper.service import Section
from ratelimit.headers import ResponseHeaders, name_mistake
from ratelimit.redis_section import RedisSection

__all__ = ["MemorySection", "RatelimitSection", "ResponseHeadersSection", "StoreSection"]

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
    """In the process itself. With `redis`, this is where rules with `on_store_error: local` count while Redis is away."""

    redis: RedisSection | None = None
    """In Redis, for all processes and hosts together. Default null: in memory."""

    redis_per_second: RedisSection | None = None
    """A Redis of their own for limits of a second, whose many short-lived keys may then be far from the others
    (REDIS_PERSECOND). Default null: in `redis`, as all."""

    @property
    def shared(self) -> bool:
        """Whether all processes count together; the memory store is each process's own."""
        return self.redis is not None

    @property
    def clustered(self) -> bool:
        """Whether it is a Redis cluster, which decides together only what lies in one slot."""
        return any(one is not None and one.cluster is not None for one in (self.redis, self.redis_per_second))

    @property
    def split(self) -> bool:
        """Whether limits of a second are counted in a Redis of their own."""
        return self.redis_per_second is not None

    @model_validator(mode="after")
    def _others_have_a_redis_too(self) -> Self:
        if self.redis_per_second is not None and self.redis is None:
            raise mistake_at("redis_per_second", "the other limits need a Redis, too; set `redis`")
        return self


def _header_name(name: str) -> str:
    if mistake := name_mistake(name):
        raise ValueError(mistake)
    return name


HeaderName = Annotated[str, AfterValidator(_header_name)]


class ResponseHeadersSection(Model):
    """Headers about limits that answers bring to the client, of requests that pass as well."""

    nearest: bool = False
    """Whether three headers tell the numbers of the limit that has least left: its `requests_per_unit`, what remains, and
    the seconds until it is as new (LIMIT_RESPONSE_HEADERS_ENABLED). Default false."""

    limit: HeaderName = "RateLimit-Limit"
    """The name of the first of `nearest` (LIMIT_LIMIT_HEADER). Default `RateLimit-Limit`."""

    remaining: HeaderName = "RateLimit-Remaining"
    """The name of the second (LIMIT_REMAINING_HEADER). Default `RateLimit-Remaining`."""

    reset: HeaderName = "RateLimit-Reset"
    """The name of the third (LIMIT_RESET_HEADER). Default `RateLimit-Reset`."""

    ietf: bool = False
    """Whether `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-09) tell all limits by their names;
    one without a name is told by the rule's keys and configured values. Rules in `shadow_mode` are left out. Default false."""

    retry_after: bool = False
    """Whether a refusal tells by `Retry-After` in how many seconds the same request would pass, at least 1; one that never
    will has none. Default false."""

    @model_validator(mode="after")
    def _each_by_itself(self) -> Self:
        taken = {"ratelimit", "ratelimit-policy"} if self.ietf else set()
        taken |= {"retry-after"} if self.retry_after else set()
        for field in ("limit", "remaining", "reset"):
            name = getattr(self, field).lower()
            if self.nearest and name in taken:
                raise mistake_at(field, "another header has this name; each needs one of its own")
            taken.add(name)
        return self

    @property
    def wanted(self) -> ResponseHeaders:
        """What the answers are to carry."""
        names = (self.limit, self.remaining, self.reset)
        return ResponseHeaders(names if self.nearest else None, self.ietf, self.retry_after)


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

    compat: Literal["default", "strict"] = "default"
    """`strict` does as envoyproxy/ratelimit does also where it errs: what is refused is counted all the same, a look
    (0 hits) at a limit that is used up is no refusal, and counters whose keys and values look alike when they are joined
    by `_` are one. It takes neither `all_or_nothing` nor several `limits`. Default `default`."""

    on_store_error: Literal["allow", "deny", "local", "error"] = "error"
    """What becomes of a request when the store cannot tell, unless its rule says otherwise: `allow` lets it pass, `deny`
    refuses it, `local` lets this process count by itself with its share of the limit, `error` (default) answers
    `UNAVAILABLE`, so that Envoy's `failure_mode_deny` decides."""

    local_processes: int | None = Field(default=None, ge=1, le=100_000)
    """How many processes share each limit while they count by themselves (`local`), on all hosts together, 1 to 100000:
    each lets pass its part, rounded down, but at least 1. Default: the `workers` of this one."""

    over_limit_cache: Bytes = Field(default=4 << 20, le=1 << 30)
    """Memory in which a process keeps what the store said is used up, so that it need not ask again, at most `1GiB`,
    default `4MiB`, `0B`: none. Not used with the memory store."""

    response_headers: ResponseHeadersSection = Field(default_factory=ResponseHeadersSection)
    """Headers that answers bring to the client, besides Envoy's own `X-RateLimit` ones. Default: none."""

    reference_metrics: bool = False
    """Whether the metrics show envoyproxy/ratelimit's names as well (`ratelimit_service_rate_limit_total_hits` and so on),
    for dashboards that know them. Default false."""

    @model_validator(mode="after")
    def _workers_share_a_store(self) -> Self:
        if self.workers > 1 and not self.store.shared:
            raise mistake_at(
                "workers",
                "each process would count by itself in the memory store, and every limit be that much higher;"
                " workers above 1 need a store that they share: use Redis",
            )
        return self
