-- Keeps an event and puts it into the queue of each of its targets, or names the event that was first.
-- KEYS[1]  the base of all keys of the queues; what is built from it here shares its hash tag.
-- ARGV     1 id   2 head   3 body   4 name to tell repetitions by, or ''   5 how long that is known, ms
--          6 'callback' or ''   7 audit record or ''   8 correlation id   9 audit retention, ms
--          10 how long a settled event is kept, ms   11 what all repetitions must have in common
--          12 route   13 to 15 a second name, how long it is known, and what is common to it
--          16 our own time, ms
--          then for each target: name, state, delay in ms or dead letter's member, order digest or '',
--          record or ''. States: q queued, w waiting for its time, x dead from the beginning, n not wanted.
-- Returns  false once the event is kept, otherwise {id, 1} of the first event of one of the names;
--          {id, 0} if that one had something else in common.
local base = KEYS[1]
local id = ARGV[1]
local names = {{ARGV[4], ARGV[5], ARGV[11]}, {ARGV[13], ARGV[14], ARGV[15]}}
local function note(name, event_id)
  if name[1] ~= '' then
    redis.call('SET', base .. 'seen:' .. name[1], event_id .. ' ' .. name[3], 'PX', name[2], 'NX')
  end
end
for i, name in ipairs(names) do
  local first = name[1] ~= '' and redis.call('GET', base .. 'seen:' .. name[1])
  if first then
    local first_id, common = string.match(first, '^(%S+) (.*)$')
    if common ~= name[3] then return {first_id, 0} end
    -- Its other name is one of the first event as well.
    note(names[3 - i], first_id)
    return {first_id, 1}
  end
end
for _, name in ipairs(names) do note(name, id) end
-- The entry's id begins with the store's time, unless an earlier entry was given a later one.
local entry = write_entry(ARGV[7], ARGV[8], ARGV[9], true)
local now = entry and string.match(entry, '^%d+')
if not now or math.abs(now - ARGV[16]) > 500 then
  local time = redis.call('TIME')
  now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end
local event = base .. 'event:' .. id
local route = ARGV[12]
-- Written at once at the end: what is a call here is a line on disk as well.
local fields, n = {'head', ARGV[2], 'at', now}, 4
local open, dead = 0, 0
for i = 17, #ARGV, 5 do
  local target, state, due, order, record = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local lane = route .. '/' .. target
  if state == 'x' then
    dead = dead + 1
    redis.call('ZADD', base .. 'dead:' .. route, now, due)
    redis.call('SADD', base .. 'routes', route)
    fields[n + 1], fields[n + 2], n = 'x:' .. target, due, n + 2
  elseif state ~= 'n' then
    open = open + 1
    redis.call('ZADD', base .. 'open:' .. lane, now, id)
    local turn = 1
    if order ~= '' then
      turn = redis.call('RPUSH', base .. 'order:' .. lane .. ':' .. order, id)
      fields[n + 1], fields[n + 2], n = 'o:' .. target, order, n + 2
    end
    if turn > 1 then
      state = 'o'
    elseif state == 'w' then
      redis.call('ZADD', base .. 'later:' .. lane, now + due, id)
    else
      redis.call('XADD', base .. 'ready:' .. lane, '*', 'e', id)
    end
  end
  fields[n + 1], fields[n + 2], n = 's:' .. target, state, n + 2
  if record ~= '' then fields[n + 1], fields[n + 2], n = 't:' .. target, record, n + 2 end
end
fields[n + 1], fields[n + 2], n = 'open', open, n + 2
if dead > 0 then fields[n + 1], fields[n + 2], n = 'dead', dead, n + 2 end
local callback = ARGV[6]
if callback ~= '' then fields[n + 1], fields[n + 2], n = 'callback', callback, n + 2 end
if open == 0 and callback ~= '' then
  fields[n + 1], fields[n + 2], n = 's:' .. callback, 'q', n + 2
  redis.call('XADD', base .. 'ready:' .. route .. '/' .. callback, '*', 'e', id)
  redis.call('ZADD', base .. 'open:' .. route .. '/' .. callback, now, id)
end
if open > 0 or dead > 0 or callback ~= '' then
  redis.call('HSET', event, 'body', ARGV[3], unpack(fields))
else
  -- Nobody wants it: what is kept is that it came.
  redis.call('HSET', event, unpack(fields))
  redis.call('PEXPIRE', event, ARGV[10])
end
return false
