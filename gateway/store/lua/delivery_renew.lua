-- Keeps what a worker is busy with from being handed to another one.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 route   2 target   3 consumer   then the entries, as they were handed out
local lane = ARGV[1] .. '/' .. ARGV[2]
for i = 4, #ARGV do
  local kind = string.sub(ARGV[i], 1, 1) == 'a' and 'again:' or 'ready:'
  local stream, entry = KEYS[1] .. kind .. lane, string.sub(ARGV[i], 2)
  local held = redis.pcall('XPENDING', stream, 'lockgate', entry, entry, 1, ARGV[3])
  if not held.err and held[1] then
    redis.call('XCLAIM', stream, 'lockgate', ARGV[3], 0, entry, 'JUSTID')
  end
end
return false
