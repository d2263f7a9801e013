-- The prelude of every script: what time it is.
-- now_us: Redis' own clock, microseconds since the epoch; the caller has no say in it.
-- spare_ms: milliseconds that a key outlives its state, so that the server's own rounding never forgets one early.
if redis.replicate_commands then
  redis.replicate_commands() -- Redis 6, where it may be off: what has read the clock may still write
end
local time = redis.call('TIME')
local now_us, spare_ms = time[1] * 1000000 + time[2], 1000
