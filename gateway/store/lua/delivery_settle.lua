-- Writes down how an attempt ended: delivered, to be repeated, given up, or saved half-way.
-- Nothing happens if the event was handed to somebody else meanwhile (its fence is another one).
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 route   2 target   3 entry   4 id   5 fence
--          6 verdict: delivered, dead, later (in 7 ms), saved (the attempt goes on)
--          7 ms until it is due again, or the dead letter's member   8 record, '' to leave it as it is
--          9 how long a settled event is kept, ms   10 audit record or ''   11 correlation id
--          12 audit retention, ms
-- Returns  how many targets are still open; -1 if the attempt was not the current one.
local base = KEYS[1]
local route, target, entry, id, verdict = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local lane = route .. '/' .. target
local ready, event = base .. 'ready:' .. lane, base .. 'event:' .. id
local stream = string.sub(entry, 1, 1) == 'a' and base .. 'again:' .. lane or ready
entry = string.sub(entry, 2)
local fence = redis.call('HGET', event, 'f:' .. target)
local running = redis.call('HGET', event, 's:' .. target) == 'r'
if fence ~= ARGV[5] or not running then
  if not fence or not running then
    -- Purged, or settled by an order from outside: nobody else will take the entry away.
    redis.call('XACK', stream, 'lockgate', entry)
    redis.call('XDEL', stream, entry)
  end
  return -1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- First a write that needs no memory: a store that is full takes what follows only behind one, and it
-- is settling that makes room.
if verdict == 'saved' then
  redis.call('PERSIST', event)
else
  redis.call('XACK', stream, 'lockgate', entry)
  redis.call('XDEL', stream, entry)
end
if ARGV[8] ~= '' then redis.call('HSET', event, 't:' .. target, ARGV[8]) end
if ARGV[10] ~= '' then
  local at = redis.call('XADD', base .. 'audit', '*', 'r', ARGV[10])
  redis.call('APPEND', base .. 'entries:' .. ARGV[11], ' ' .. at)
  redis.call('PEXPIRE', base .. 'entries:' .. ARGV[11], ARGV[12])
end
if verdict == 'saved' then return tonumber(redis.call('HGET', event, 'open')) end
if verdict == 'later' then
  if tonumber(ARGV[7]) > 0 then
    redis.call('HSET', event, 's:' .. target, 'w')
    redis.call('ZADD', base .. 'later:' .. lane, now + ARGV[7], id)
  else
    -- Given back: whoever waits at the stream may take it at once.
    redis.call('HSET', event, 's:' .. target, 'q')
    redis.call('XADD', base .. 'again:' .. lane, '*', 'e', id)
  end
  return tonumber(redis.call('HGET', event, 'open'))
end

redis.call('ZREM', base .. 'open:' .. lane, id)
if verdict == 'dead' then
  redis.call('HSET', event, 's:' .. target, 'x', 'x:' .. target, ARGV[7])
  redis.call('HINCRBY', event, 'dead', 1)
  redis.call('ZADD', base .. 'dead:' .. route, now, ARGV[7])
  redis.call('SADD', base .. 'routes', route)
else
  redis.call('HSET', event, 's:' .. target, 'd')
end

-- The next of its order may go.
local order = redis.call('HGET', event, 'o:' .. target)
if order then
  local waiting = base .. 'order:' .. lane .. ':' .. order
  redis.call('LREM', waiting, 1, id)
  local following = redis.call('LINDEX', waiting, 0)
  while following do
    local its = base .. 'event:' .. following
    local state = redis.call('HGET', its, 's:' .. target)
    if state == 'o' then
      redis.call('HSET', its, 's:' .. target, 'q')
      redis.call('XADD', ready, '*', 'e', following)
      break
    elseif state == 'q' or state == 'r' or state == 'w' then
      break
    end
    -- Purged: it has no turn any more.
    redis.call('LPOP', waiting)
    following = redis.call('LINDEX', waiting, 0)
  end
end

local callback = redis.call('HGET', event, 'callback')
local open
if target == callback then
  open = tonumber(redis.call('HGET', event, 'open'))
  callback = false
else
  open = redis.call('HINCRBY', event, 'open', -1)
end
if open == 0 then
  if callback then
    redis.call('HSET', event, 's:' .. callback, 'q')
    redis.call('ZADD', base .. 'open:' .. route .. '/' .. callback, now, id)
    redis.call('XADD', base .. 'ready:' .. route .. '/' .. callback, '*', 'e', id)
  elseif (redis.call('HGET', event, 'dead') or '0') == '0' then
    redis.call('HDEL', event, 'body')
    redis.call('PEXPIRE', event, ARGV[9])
  end
end
return open
