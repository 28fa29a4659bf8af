-- Appends entries to the audit.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 retention, ms   then for each entry: the record, the correlation id
local base = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 2, #ARGV, 2 do
  local at = redis.call('XADD', base .. 'audit', '*', 'r', ARGV[i])
  redis.call('APPEND', base .. 'entries:' .. ARGV[i + 1], ' ' .. at)
  redis.call('PEXPIRE', base .. 'entries:' .. ARGV[i + 1], ARGV[1])
end
return false
