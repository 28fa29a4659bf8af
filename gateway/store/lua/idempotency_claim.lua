-- Claims the record KEYS[1], or says what is there.
-- ARGV: the claim's string; the lease in milliseconds.
-- Returns false once the claim is ours, otherwise {what is there, how long it still is, in ms}.
local found = redis.call('GET', KEYS[1])
if not found then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return false
end
return {found, redis.call('PTTL', KEYS[1])}
