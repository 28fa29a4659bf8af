-- All limits of one request, decided at once: if one that is enforced does not fit, none is charged.
--
-- KEYS[i]  the bucket of limit i; all keys share a hash tag
-- ARGV[1]  in MessagePack (one argument costs the gateway less than seven), a list of one list for
--          each limit:
--   'b', enforced, charge, charge rest, depth, depth rest, parts     a token bucket (GCRA)
--   'd' or 'm', enforced, cost, quota                                a quota by day or month, UTC
-- Reply    three integers for each limit: 1 if it fits, and the level after the decision:
--   bucket: how far the theoretical arrival time is ahead of now, in microseconds, and the rest
--   quota:  units used in this day or month, and microseconds until the next begins
--
-- The clock is the store's. Times are whole microseconds with a rest of 1/parts of one, added and
-- compared as integers below 2^53, so no rate drifts. Where the clock goes back, no bucket is
-- further ahead than its depth, and a quota stays in the later of two windows.
local FORMAT = '%.0f'
local floor = math.floor
local time = redis.call('TIME')
local seconds = tonumber(time[1])
local now = seconds * 1000000 + tonumber(time[2])

-- The first day of the month that a day is in; days since 1970 (proleptic Gregorian calendar, as
-- years that begin in March: era of 400 years, year and day of the era).
local function month_start(day)
  local z = day + 719468
  local of_era = z % 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524)
    - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * of_year + 2) / 153)
  return day - (of_year - floor((153 * month + 2) / 5))
end

local function window(kind, day)
  if kind == 'd' then return day, day + 1 end
  local first = month_start(day)
  return first, month_start(first + 31)
end

-- "<whole>" or "<whole>:<rest>"; nil for what is neither
local function pair(text)
  local whole = tonumber(text)
  if whole then return whole, 0 end
  local at = string.find(text, ':', 1, true)
  if not at then return nil, nil end
  return tonumber(string.sub(text, 1, at - 1)), tonumber(string.sub(text, at + 1))
end

local function text(whole, rest)
  if rest == 0 then return string.format(FORMAT, whole) end
  return string.format(FORMAT, whole) .. ':' .. string.format(FORMAT, rest)
end

-- Each of the two gives: whether the request fits, the level now and after it, and whether the state
-- could not be and must be written anew, because it would make the bucket look empty for too long.

local function bucket(limit, whole, rest)
  local charge, charge_rest, depth, depth_rest, parts = unpack(limit, 3, 7)
  local level, second, mend = 0, 0, false
  if whole and rest and whole >= now then
    level, second = whole - now, math.min(rest, parts - 1)
    if level > depth or (level == depth and second > depth_rest) then
      level, second, mend = depth, depth_rest, true
    end
  end
  local after, after_rest = level + charge, second + charge_rest
  if after_rest >= parts then after, after_rest = after + 1, after_rest - parts end
  local fits = after < depth or (after == depth and after_rest <= depth_rest)
  return fits, level, second, after, after_rest, mend
end

local function quota(limit, whole, rest)
  local kind, _, cost, most = unpack(limit, 1, 4)
  local first, following = window(kind, floor(seconds / 86400))
  local used, mend = 0, false
  if whole and rest and whole >= first then
    used, mend = rest, whole > following
    if whole == following then first, following = window(kind, whole) end
  end
  local left = following * 86400000000 - now
  return used + cost <= most, used, left, used + cost, left, mend, first
end

local states = #KEYS == 1 and { redis.call('GET', KEYS[1]) } or redis.call('MGET', unpack(KEYS))
local limits = cmsgpack.unpack(ARGV[1])
local found = {}
local refused = false

for i = 1, #KEYS do
  local limit, whole, rest = limits[i], nil, nil
  if states[i] then whole, rest = pair(states[i]) end
  local one = { (limit[1] == 'b' and bucket or quota)(limit, whole, rest) }
  found[i] = one
  if limit[2] and not one[1] then refused = true end
end

local reply = {}
for i = 1, #KEYS do
  local fits, level, second, after, after_second, mend, first = unpack(found[i], 1, 7)
  if fits and not refused then
    level, second, mend = after, after_second, true
  end
  if mend then
    -- A quota's state is its first day and what was used, a bucket's the arrival time.
    local value = first and text(first, level) or text(now + level, second)
    local us = first and second or level
    redis.call('SET', KEYS[i], value, 'PX', string.format(FORMAT, floor(us / 1000) + 1))
  end
  reply[3 * i - 2], reply[3 * i - 1], reply[3 * i] = fits and 1 or 0, level, second
end
return reply
