-- Tells how far schedules are, and has those begin now that are new.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     for each schedule: its key, its route
-- Returns  {the time (ms), then for each schedule the newest tick that is done (ms)}
local schedules = KEYS[1] .. 'schedules'
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local found = {now}
for i = 1, #ARGV, 2 do
  local last = redis.call('HGET', schedules, 'l:' .. ARGV[i])
  if not last then
    last = now
    redis.call('HSET', schedules, 'l:' .. ARGV[i], now)
  end
  redis.call('HSET', schedules, 'r:' .. ARGV[i], ARGV[i + 1])
  found[#found + 1] = last
end
return found
