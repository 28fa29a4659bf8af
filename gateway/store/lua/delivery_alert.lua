-- Gathers what somebody is to be told of, over all gateways, and says who tells it: one, once in a
-- while.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 what it is about   2 how many more   3 the newest of them, or ''   4 how often at most, ms
-- Returns  {0, how many to tell of, the newest, when the first came (ms)}, or, if it was told lately,
--          {ms until it may be told again, how many wait, '', 0}
local told = KEYS[1] .. 'alert:' .. ARGV[1] .. ':told'
local waiting = KEYS[1] .. 'alert:' .. ARGV[1]
if ARGV[2] ~= '0' then
  local time = redis.call('TIME')
  redis.call('HSETNX', waiting, 'since', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('HINCRBY', waiting, 'count', ARGV[2])
  redis.call('HSET', waiting, 'newest', ARGV[3])
  redis.call('PEXPIRE', waiting, 86400000)
end
local found = redis.call('HMGET', waiting, 'count', 'newest', 'since')
if not found[1] then return {0, 0, '', 0} end
if redis.call('SET', told, '1', 'NX', 'PX', ARGV[4]) then
  redis.call('DEL', waiting)
  return {0, tonumber(found[1]), found[2], tonumber(found[3])}
end
return {math.max(1, redis.call('PTTL', told)), tonumber(found[1]), '', 0}
