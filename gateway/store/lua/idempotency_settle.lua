-- Ends or renews a claim, if KEYS[1] still holds it.
-- ARGV: the claim's string; milliseconds; optionally what takes its place.
-- With a replacement, stores it for that long; without one, renews the lease, or with 0 gives it back.
-- Returns 1 if the claim was still held. A record that is gone is written all the same: the lease has
-- lapsed, nobody else has claimed it, and the request was carried out.
local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[1] then
  return 0
end
if ARGV[3] then
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
elseif ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
elseif found then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
