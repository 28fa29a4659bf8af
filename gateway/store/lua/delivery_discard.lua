-- Throws dead letters away, and the event when nothing else needs it.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 route   2 audit retention, ms   3 the target that is told at the end
--          then for each letter: id, target, member, audit record or '', correlation id
-- Returns  for each letter 1, or 0 if it was not there any more.
local base, route, told = KEYS[1], ARGV[1], ARGV[3]
local letters = base .. 'dead:' .. route
local outcomes = {}
for i = 4, #ARGV, 5 do
  local id, target, member = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local event = base .. 'event:' .. id
  local removed = redis.call('ZREM', letters, member)
  if redis.call('HGET', event, 'x:' .. target) == member then
    redis.call('HDEL', event, 'x:' .. target)
    local dead = redis.call('HINCRBY', event, 'dead', -1)
    local open, telling = unpack(redis.call('HMGET', event, 'open', 's:' .. told))
    -- While somebody is still to be told, the event is needed; it is let go of then.
    local needed = telling == 'q' or telling == 'r' or telling == 'w'
    if dead < 1 and open == '0' and not needed then redis.call('DEL', event) end
    write_entry(ARGV[i + 3], ARGV[i + 4], ARGV[2])
  end
  outcomes[#outcomes + 1] = removed
end
return outcomes
