-- Hands out what is to be delivered now: events that are due again, those of workers that died, and
-- those that are new, in this order.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 route   2 target   3 consumer   4 how many at most   5 lease in ms, or 0 not to look for
--          what dead workers hold   6 microseconds between two deliveries (0: no rate)   7 burst
-- Returns  {the events, ms until the next one is due (-1: none), ms until the rate allows more (0: now),
--          the newest id of the new ones, that of those that are due again}; an event is {entry, id,
--          fence, head, body, record, when it came to this target (ms)}. An entry is the letter of its
--          stream, n for new ones or a for those that are due again, and its id there: a stream of
--          their own keeps retries from standing behind a backlog.
local base = KEYS[1]
local route, target, consumer = ARGV[1], ARGV[2], ARGV[3]
local count, lease = tonumber(ARGV[4]), tonumber(ARGV[5])
local lane = route .. '/' .. target
local streams = {a = base .. 'again:' .. lane, n = base .. 'ready:' .. lane}
local later = base .. 'later:' .. lane
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

-- The rate of all workers together: a bucket (GCRA) that is charged for what is really handed out.
local every, burst = tonumber(ARGV[6]), tonumber(ARGV[7])
local full_at, wait = micros, 0
if every > 0 then
  full_at = math.max(micros, tonumber(redis.call('GET', base .. 'rate:' .. lane) or '0'))
  local room = math.floor((micros + every * burst - full_at) / every)
  if room < 1 then
    wait = math.ceil((full_at - micros - every * (burst - 1)) / 1000)
    count = 0
  elseif room < count then
    count = room
  end
end

local taken, skipped = {}, false
local function hand_out(letter, entries)
  for _, entry in ipairs(entries) do
    -- Redis 6 gives nothing for a claimed entry that was deleted.
    local id = entry and entry[2] and entry[2][2]
    local event = id and base .. 'event:' .. id
    local state, fence, head, body, record, at, version, callback
    if event then
      state, fence, head, body, record, at, version, callback = unpack(redis.call('HMGET', event,
        's:' .. target, 'f:' .. target, 'head', 'body', 't:' .. target, 'at', 'v:' .. target, 'callback'))
    end
    if state == 'q' or state == 'r' then
      fence = (fence or 0) + 1
      redis.call('HSET', event, 'f:' .. target, fence, 's:' .. target, 'r')
      -- Who tells how it ended has a time of its own; there is no record before the first attempt.
      if callback == target and not record then
        at = redis.call('ZSCORE', base .. 'open:' .. lane, id) or at
      end
      if version then body = redis.call('HGET', event, 'body:' .. version) end
      taken[#taken + 1] = {letter .. entry[1], id, fence, head, body or '', record or '', tonumber(at)}
    elseif entry then
      skipped = true
      -- Purged or settled meanwhile, or a second entry of an event that another one stands for.
      redis.call('XACK', streams[letter], 'lockgate', entry[1])
      redis.call('XDEL', streams[letter], entry[1])
    end
  end
end

-- What living workers hold stands between: one call looks at ten times COUNT, and all are looked at.
local function claim(letter)
  local cursor = '0-0'
  for _ = 1, 128 do
    local stale = redis.pcall('XAUTOCLAIM', streams[letter], 'lockgate', consumer, lease, cursor,
      'COUNT', count - #taken)
    if stale.err then return end
    hand_out(letter, stale[2])
    cursor = stale[1]
    if cursor == '0-0' or #taken >= count then return end
  end
end

-- Each start of a gateway is a consumer of its own: those that hold nothing and are gone go.
local function tidy(letter)
  local known = redis.pcall('XINFO', 'CONSUMERS', streams[letter], 'lockgate')
  if known.err then return end
  for _, flat in ipairs(known) do
    local of = {}
    for i = 1, #flat, 2 do of[flat[i]] = flat[i + 1] end
    if of.pending == 0 and of.idle > 100 * lease and of.name ~= consumer then
      redis.call('XGROUP', 'DELCONSUMER', streams[letter], 'lockgate', of.name)
    end
  end
end

local function pull(letter, most)
  if most < 1 then return end
  local stream = streams[letter]
  local new = redis.pcall('XREADGROUP', 'GROUP', 'lockgate', consumer, 'COUNT', most, 'STREAMS',
    stream, '>')
  if new and new.err then
    -- The first time, or the store was emptied.
    redis.call('XGROUP', 'CREATE', stream, 'lockgate', '0', 'MKSTREAM')
    new = redis.call('XREADGROUP', 'GROUP', 'lockgate', consumer, 'COUNT', most, 'STREAMS', stream, '>')
  end
  if new then hand_out(letter, new[1][2]) end
end

if count > 0 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, count)) do
    redis.call('ZREM', later, id)
    local event = base .. 'event:' .. id
    if redis.call('HGET', event, 's:' .. target) == 'w' then
      redis.call('HSET', event, 's:' .. target, 'q')
      redis.call('XADD', streams.a, '*', 'e', id)
    end
  end
  if lease > 0 then
    claim('a')
    if #taken < count then claim('n') end
    tidy('a')
    tidy('n')
  end
  -- Half for those that are due again, so that they do not keep new ones back either; of an odd
  -- number now one, now the other has one more.
  pull('a', math.floor((count - #taken + micros % 2) / 2))
  pull('n', count - #taken)
  pull('a', count - #taken)
  if every > 0 and #taken > 0 then
    local charged = string.format('%.0f', full_at + every * #taken)
    redis.call('SET', base .. 'rate:' .. lane, charged, 'PX',
      math.ceil((full_at + every * #taken - micros) / 1000) + 1000)
  end
end
local first = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
local due = -1
if first[2] then due = math.max(0, tonumber(first[2]) - now) end
-- There may be more behind what was skipped.
if skipped then due = 0 end
local function newest(letter)
  local last = redis.call('XREVRANGE', streams[letter], '+', '-', 'COUNT', 1)[1]
  return last and last[1] or '0-0'
end
return {taken, due, wait, newest('n'), newest('a')}
