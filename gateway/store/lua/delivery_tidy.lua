-- Looks at the oldest events of a lane that are not settled, and mends what an eviction, a key that
-- was deleted by hand, or a purge left behind; and lets go of consumers that are long gone.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 route   2 target   3 how many events at most   4 our own consumer
--          5 how long another one must have been silent, ms
-- Returns  {events that are there no more, turns that were given on, consumers that were removed}
local base, target = KEYS[1], ARGV[2]
local lane = ARGV[1] .. '/' .. target
local open, ready = base .. 'open:' .. lane, base .. 'ready:' .. lane
local lost, turned, left = 0, 0, 0

local function state_of(id) return redis.call('HGET', base .. 'event:' .. id, 's:' .. target) end

local function give_on(waiting)
  local id = redis.call('LINDEX', waiting, 0)
  while id do
    local state = state_of(id)
    if state == 'q' or state == 'r' or state == 'w' then return 0 end
    if state == 'o' then
      redis.call('HSET', base .. 'event:' .. id, 's:' .. target, 'q')
      redis.call('XADD', ready, '*', 'e', id)
      return 1
    end
    redis.call('LPOP', waiting)
    id = redis.call('LINDEX', waiting, 0)
  end
  return 0
end

for _, id in ipairs(redis.call('ZRANGE', open, 0, ARGV[3] - 1)) do
  local state = state_of(id)
  if not state then
    redis.call('ZREM', open, id)
    redis.call('ZREM', base .. 'later:' .. lane, id)
    lost = lost + 1
  elseif state == 'o' then
    local order = redis.call('HGET', base .. 'event:' .. id, 'o:' .. target)
    if order then turned = turned + give_on(base .. 'order:' .. lane .. ':' .. order) end
  end
end

for _, kind in ipairs({'ready:', 'again:'}) do
  local stream = base .. kind .. lane
  -- An error if nobody has ever taken anything there.
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, 'lockgate')
  for _, each in ipairs(consumers.err and {} or consumers) do
    local facts = {}
    for i = 1, #each, 2 do facts[each[i]] = each[i + 1] end
    -- What it holds is claimed by others first.
    if facts.name ~= ARGV[4] and facts.pending == 0 and facts.idle > tonumber(ARGV[5]) then
      redis.call('XGROUP', 'DELCONSUMER', stream, 'lockgate', facts.name)
      left = left + 1
    end
  end
end
return {lost, turned, left}
