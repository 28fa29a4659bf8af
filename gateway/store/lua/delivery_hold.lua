-- Takes or keeps a lease that one process has at a time, or gives it up.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 what the lease is for   2 who wants it   3 for how long, ms; 0 gives it up
-- Returns  2 if it was taken now, 1 if it was held before, 0 if somebody else holds it
local key = KEYS[1] .. 'hold:' .. ARGV[1]
local holder = redis.call('GET', key)
if holder and holder ~= ARGV[2] then return 0 end
if ARGV[3] == '0' then
  redis.call('DEL', key)
  return 0
end
redis.call('SET', key, ARGV[2], 'PX', ARGV[3])
return holder and 1 or 2
