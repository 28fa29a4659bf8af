-- Sends dead letters on their way again: each is no letter any more, and begins another epoch.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 route   2 audit retention, ms   3 the target that is told at the end
--          then for each letter, 14: id, its target, its member, its record as it was read, the target
--          it goes to, that one's record as it was read or '', the record of the new epoch, the
--          record that stays with the letter's target if it goes to another one, the order's digest
--          or '', the record for telling once more how it ended, the version of a corrected body or
--          '', that body, the audit record or '', the correlation id
-- Returns  for each letter: done; gone, if it is no letter any more; open, if it is under way to the
--          other target already; changed, if something of it is not as it was read.
local base, route, told = KEYS[1], ARGV[1], ARGV[3]
local letters = base .. 'dead:' .. route
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function is_open(state) return state == 'q' or state == 'r' or state == 'w' or state == 'o' end

local function take_back(event, target)
  local member = redis.call('HGET', event, 'x:' .. target)
  if member then
    redis.call('ZREM', letters, member)
    redis.call('HDEL', event, 'x:' .. target)
    redis.call('HINCRBY', event, 'dead', -1)
  end
end

local function again(i)
  local id, target, member, to = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 4]
  local event = base .. 'event:' .. id
  local state, letter, record, its_state, its_record, telling = unpack(redis.call('HMGET', event,
    's:' .. target, 'x:' .. target, 't:' .. target, 's:' .. to, 't:' .. to, 's:' .. told))
  if letter ~= member then
    redis.call('ZREM', letters, member)
    return 'gone'
  end
  if state ~= 'x' then return 'gone' end
  if record ~= ARGV[i + 3] then return 'changed' end
  if to ~= target then
    if is_open(its_state) then return 'open' end
    if (its_record or '') ~= ARGV[i + 5] then return 'changed' end
  end
  local version = ARGV[i + 10]
  if version ~= '' then
    local name = 'body:' .. version
    -- Two targets may be sent the same correction, which is one version then.
    local new = redis.call('HSETNX', event, name, ARGV[i + 11]) == 1
    if not new and redis.call('HGET', event, name) ~= ARGV[i + 11] then return 'changed' end
    redis.call('HSET', event, 'v:' .. to, version)
  elseif to ~= target then
    local its = redis.call('HGET', event, 'v:' .. target)
    if its then redis.call('HSET', event, 'v:' .. to, its) else redis.call('HDEL', event, 'v:' .. to) end
  end

  take_back(event, target)
  if to ~= target then
    take_back(event, to)
    redis.call('HSET', event, 's:' .. target, 'n', 't:' .. target, ARGV[i + 7])
  end
  if to ~= told then
    redis.call('HINCRBY', event, 'open', 1)
    if redis.call('HEXISTS', event, 'callback') == 1 then
      -- It is told again when all has ended once more, and not before.
      take_back(event, told)
      if is_open(telling) then
        redis.call('ZREM', base .. 'open:' .. route .. '/' .. told, id)
        redis.call('ZREM', base .. 'later:' .. route .. '/' .. told, id)
      end
      redis.call('HSET', event, 's:' .. told, 'n', 't:' .. told, ARGV[i + 9])
      redis.call('HINCRBY', event, 'f:' .. told, 1)
    end
  end

  local lane = route .. '/' .. to
  local turn, order = 1, ARGV[i + 8]
  if order ~= '' then
    turn = redis.call('RPUSH', base .. 'order:' .. lane .. ':' .. order, id)
    redis.call('HSET', event, 'o:' .. to, order)
  end
  redis.call('HINCRBY', event, 'f:' .. to, 1)
  redis.call('HSET', event, 't:' .. to, ARGV[i + 6], 's:' .. to, turn > 1 and 'o' or 'q')
  redis.call('PERSIST', event)
  redis.call('ZADD', base .. 'open:' .. lane, now, id)
  if turn == 1 then redis.call('XADD', base .. 'ready:' .. lane, '*', 'e', id) end
  write_entry(ARGV[i + 12], ARGV[i + 13], ARGV[2])
  return 'done'
end

local outcomes = {}
for i = 4, #ARGV, 14 do outcomes[#outcomes + 1] = again(i) end
return outcomes
