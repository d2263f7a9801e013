-- Count a batch: groups of hits one after the other, each group from all of its counters or from none.
--
-- Units: microseconds where a name ends in `_us`; a bucket's backlog in parts of one (`Limit.hit_cost`). All numbers are
-- integers below 2^52, so that doubles, their products here and their quotients rounded up or down are exact.
-- Before this stands clock.lua, which has now_us and spare_ms.
-- KEYS[n]: the counters, each once; in a cluster all of one slot.
-- ARGV[1]: msgpack of {limits, limit_of, hits}, three flat arrays of integers:
--   limits: for each limit algorithm (0 fixed_window, 1 sliding_window, 2 token_bucket), window_us, most hits, and
--     fixed_window: counts_refused (0 or 1), 0; sliding_window: tick_us, 0; token_bucket: hit_cost, refill
--   limit_of: for KEYS[n] where a limit that it counts for begins in `limits` (1: at the first number)
--   hits: for each group how many hits it has, then for each of them: role (0 enforced, 1 watched, 2 quota), hits,
--     how many counters it has, and for each of those: n of KEYS[n], and where its limit begins in `limits`
-- Answer: msgpack of {now_us, states, taken}; `states` has three integers for each key, its state as it was before
--   (-1 0 0: none; the last is 0 where a state has two); `taken` is a text with `1` for each hit that was added, else `0`.
-- What a key holds: `start_us:count`, `start_us:count:previous`, `at_us:backlog`; anything else is no state, and goes.
-- Equals ratelimit.counting.count for each group (with ratelimit.algorithms.counted), over the states it answers with.

local MOST_HITS, MOST_STATE = 4294967296, 4503599627370496
local WATCHED, QUOTA = 1, 2
local SHAPES = { [0] = '^(%d+):(%d+)$', '^(%d+):(%d+):(%d+)$', '^(%d+):(%d+)$' }
local KEYS_A_READ = 1000
local floor, ceil, max, min, format = math.floor, math.ceil, math.max, math.min, string.format

local asked = cmsgpack.unpack(ARGV[1])
local limits, limit_of, hits_of = asked[1], asked[2], asked[3]
local A, B, C = {}, {}, {} -- the state of each key, in three numbers; A is -1 where there is none

local function window_start(window_us)
  return floor(now_us / window_us) * window_us
end

local function fixed_window(a, b, _, hits, limit)
  local window_us, most = limits[limit + 1], limits[limit + 2]
  local start_us, before = window_start(window_us), 0
  if a >= start_us and a - start_us <= window_us then
    start_us, before = a, b
  end
  local over, after
  if limits[limit + 3] == 1 then
    after = min(max(0, before + hits), MOST_HITS)
    over = hits >= 0 and after > most
  else
    over = hits >= 0 and before + max(1, hits) > most
    after = over and before or max(0, before + hits)
  end
  if after == 0 then
    return over, -1, 0, 0
  end
  return over, start_us, after, 0
end

local function sliding_window(a, b, c, hits, limit)
  local window_us, most = limits[limit + 1], limits[limit + 2]
  local start_us, count, previous = window_start(window_us), 0, 0
  if a == start_us or a == start_us + window_us then
    start_us, count, previous = a, b, c
  elseif a >= 0 and a == start_us - window_us then
    previous = b
  end
  local carried = 0
  if previous > 0 then
    local tick_us = limits[limit + 3]
    local left = ceil((window_us - max(0, now_us - start_us)) / tick_us)
    carried = ceil(previous * left / ceil(window_us / tick_us))
  end
  local over = hits >= 0 and count + carried + max(1, hits) > most
  if not over then
    count = count + hits
    if count < 0 then
      count, previous = 0, max(0, previous + count)
    end
  end
  if count == 0 and previous == 0 then
    return over, -1, 0, 0
  end
  return over, start_us, count, previous
end

local function token_bucket(a, b, _, hits, limit)
  local burst, cost, refill = limits[limit + 2], limits[limit + 3], limits[limit + 4]
  local at_us, backlog = now_us, 0
  if a > now_us then
    if a - now_us <= ceil(burst * cost / refill) then
      at_us, backlog = a, b
    end
  elseif a >= 0 then
    backlog = max(0, b - (now_us - a) * refill)
  end
  local over = hits >= 0 and ceil(backlog / cost) + max(1, hits) > burst
  if not over then
    backlog = max(0, backlog + hits * cost)
  end
  if backlog == 0 then
    return over, -1, 0, 0
  end
  return over, at_us, backlog, 0
end

local COUNTED = { [0] = fixed_window, sliding_window, token_bucket }

-- Whether the hit at `at` in `hits_of` was added: to all of its counters or to none.
local function take(at)
  local hits, counters = hits_of[at + 1], hits_of[at + 2]
  if counters == 1 then
    local key, limit = hits_of[at + 3], hits_of[at + 4]
    local over
    over, A[key], B[key], C[key] = COUNTED[limits[limit]](A[key], B[key], C[key], hits, limit)
    return not over
  end
  local tried = {}
  for n = at + 3, at + 1 + 2 * counters, 2 do
    local key, limit = hits_of[n], hits_of[n + 1]
    local over, a, b, c = COUNTED[limits[limit]](A[key], B[key], C[key], hits, limit)
    if over then
      return false
    end
    tried[#tried + 1] = { key, a, b, c }
  end
  for _, state in ipairs(tried) do
    local key = state[1]
    A[key], B[key], C[key] = state[2], state[3], state[4]
  end
  return true
end

-- Where the hit after the one at `at` is.
local function after(at)
  return at + 3 + 2 * hits_of[at + 2]
end

-- Take a group of `size` hits, the first at `at`; if it is refused, all is as before but for what is given back.
local function take_together(at, size, taken)
  local places, before = {}, {}
  for n = 1, size do
    places[n] = at
    for m = at + 3, after(at) - 2, 2 do
      local key = hits_of[m]
      before[key] = { A[key], B[key], C[key] }
    end
    at = after(at)
  end
  local first = #taken
  local refused, quota, quota_left = false, false, false
  for n, place in ipairs(places) do
    local passes, role = take(place), hits_of[place]
    taken[first + n] = passes and '1' or '0'
    if role == QUOTA then
      quota, quota_left = true, quota_left or passes
    elseif role ~= WATCHED and not passes then
      refused = true
    end
  end
  if not (refused or quota and not quota_left) then
    return
  end
  for key, state in pairs(before) do
    A[key], B[key], C[key] = state[1], state[2], state[3]
  end
  for n, place in ipairs(places) do
    taken[first + n] = hits_of[place + 1] < 0 and take(place) and '1' or '0'
  end
end

local texts = {}
for first = 1, #KEYS, KEYS_A_READ do
  for _, text in ipairs(redis.call('MGET', unpack(KEYS, first, min(#KEYS, first + KEYS_A_READ - 1)))) do
    texts[#texts + 1] = text
  end
end

local states = {}
for key = 1, #KEYS do
  local limit = limit_of[key]
  local a, b, c = -1, 0, 0
  if texts[key] then
    local most = limits[limit] == 2 and limits[limit + 2] * limits[limit + 3] or MOST_HITS
    local x, y, z = string.match(texts[key], SHAPES[limits[limit]])
    x, y, z = tonumber(x or -1), tonumber(y or 0), tonumber(z or 0)
    if x < MOST_STATE and y <= most and z <= most then
      a, b, c = x, y, z
    end
  end
  A[key], B[key], C[key] = a, b, c
  states[3 * key - 2], states[3 * key - 1], states[3 * key] = a, b, c
end

local taken, at = {}, 1
while at <= #hits_of do
  local size = hits_of[at]
  at = at + 1
  if size == 1 then
    taken[#taken + 1] = take(at) and '1' or '0'
  else
    take_together(at, size, taken)
  end
  for _ = 1, size do
    at = after(at)
  end
end

-- The moment from which a state says nothing any more, as ratelimit.algorithms.expires_us.
local function expires_us(key)
  local limit = limit_of[key]
  if limits[limit] == 2 then
    return A[key] + ceil(B[key] / limits[limit + 4])
  end
  return A[key] + (limits[limit] == 1 and B[key] > 0 and 2 or 1) * limits[limit + 1]
end

for key = 1, #KEYS do
  local text = false
  if A[key] >= 0 then
    text = format(limits[limit_of[key]] == 1 and '%.0f:%.0f:%.0f' or '%.0f:%.0f', A[key], B[key], C[key])
  end
  if text and text ~= texts[key] then
    redis.call('SET', KEYS[key], text, 'PX', format('%.0f', ceil((expires_us(key) - now_us) / 1000) + spare_ms))
  elseif texts[key] and not text then
    redis.call('DEL', KEYS[key])
  end
end

return cmsgpack.pack({ now_us, states, table.concat(taken) })
