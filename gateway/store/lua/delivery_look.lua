-- How full the queue of a lane is.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 the lane
-- Returns  {not settled, when the oldest of them came (ms, -1: none), handed out, waiting for their
--          time, ms until the first of these is due (-1: none)}
local base, lane = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = redis.call('ZRANGE', base .. 'open:' .. lane, 0, 0, 'WITHSCORES')
local running = 0
for _, kind in ipairs({'ready:', 'again:'}) do
  -- An error if nobody has ever taken anything there.
  local pending = redis.pcall('XPENDING', base .. kind .. lane, 'lockgate')
  if not pending.err then running = running + pending[1] end
end
local later = base .. 'later:' .. lane
local first = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
return {
  redis.call('ZCARD', base .. 'open:' .. lane), oldest[2] and tonumber(oldest[2]) or -1, running,
  redis.call('ZCARD', later), first[2] and math.max(0, tonumber(first[2]) - now) or -1,
}
