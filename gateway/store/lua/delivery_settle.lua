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
local fence, state, order, callback, dead, open = unpack(redis.call('HMGET', event, 'f:' .. target,
  's:' .. target, 'o:' .. target, 'callback', 'dead', 'open'))
if fence ~= ARGV[5] or state ~= 'r' then
  if not fence or state ~= 'r' then
    -- Purged, or settled by an order from outside: nobody else will take the entry away.
    redis.call('XACK', stream, 'lockgate', entry)
    redis.call('XDEL', stream, entry)
  end
  return -1
end
open = tonumber(open or 0)
-- First a write that needs no memory: a store that is full takes what follows only behind one, and it
-- is settling that makes room.
if verdict == 'saved' then
  redis.call('PERSIST', event)
else
  redis.call('XACK', stream, 'lockgate', entry)
  redis.call('XDEL', stream, entry)
end
write_entry(ARGV[10], ARGV[11], ARGV[12])
-- The event's fields, with the record if there is a new one, are written in one command.
local function set(...)
  if ARGV[8] ~= '' then
    redis.call('HSET', event, 't:' .. target, ARGV[8], ...)
  elseif select('#', ...) > 0 then
    redis.call('HSET', event, ...)
  end
end
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
if verdict == 'saved' then
  set()
  return open
end
if verdict == 'later' then
  if tonumber(ARGV[7]) > 0 then
    set('s:' .. target, 'w')
    redis.call('ZADD', base .. 'later:' .. lane, clock() + ARGV[7], id)
  else
    -- Given back: whoever waits at the stream may take it at once.
    set('s:' .. target, 'q')
    redis.call('XADD', base .. 'again:' .. lane, '*', 'e', id)
  end
  return open
end

redis.call('ZREM', base .. 'open:' .. lane, id)
-- Who tells how all ended is not one of those that are counted.
if target ~= callback then open = open - 1 end
dead = tonumber(dead or 0)
if verdict == 'dead' then
  dead = dead + 1
  set('s:' .. target, 'x', 'x:' .. target, ARGV[7], 'open', open, 'dead', dead)
  redis.call('ZADD', base .. 'dead:' .. route, clock(), ARGV[7])
  redis.call('SADD', base .. 'routes', route)
else
  set('s:' .. target, 'd', 'open', open)
end

-- The next of its order may go.
if order then
  local waiting = base .. 'order:' .. lane .. ':' .. order
  redis.call('LREM', waiting, 1, id)
  local following = redis.call('LINDEX', waiting, 0)
  while following do
    local its = base .. 'event:' .. following
    local its_state = redis.call('HGET', its, 's:' .. target)
    if its_state == 'o' then
      redis.call('HSET', its, 's:' .. target, 'q')
      redis.call('XADD', ready, '*', 'e', following)
      break
    elseif its_state == 'q' or its_state == 'r' or its_state == 'w' then
      break
    end
    -- Purged: it has no turn any more.
    redis.call('LPOP', waiting)
    following = redis.call('LINDEX', waiting, 0)
  end
end

if open == 0 then
  if callback and target ~= callback then
    redis.call('HSET', event, 's:' .. callback, 'q')
    redis.call('ZADD', base .. 'open:' .. route .. '/' .. callback, clock(), id)
    redis.call('XADD', base .. 'ready:' .. route .. '/' .. callback, '*', 'e', id)
  elseif dead == 0 then
    redis.call('HDEL', event, 'body')
    redis.call('PEXPIRE', event, ARGV[9])
  end
end
return open
