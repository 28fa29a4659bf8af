-- Notes that a schedule's tick is done. The newest one counts: it never goes back.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 the schedule's key   2 the tick (ms)   3 the event that it became, or '' if it was passed over
-- Returns  1 if this is the newest tick, otherwise 0
local schedules = KEYS[1] .. 'schedules'
local last = redis.call('HGET', schedules, 'l:' .. ARGV[1])
if last and tonumber(last) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', schedules, 'l:' .. ARGV[1], ARGV[2])
if ARGV[3] ~= '' then
  local time = redis.call('TIME')
  local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('HSET', schedules, 'f:' .. ARGV[1], ARGV[2] .. ' ' .. now .. ' ' .. ARGV[3])
end
return 1
