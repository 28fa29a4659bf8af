-- Has names by which repetitions are told be forgotten sooner: whoever could repeat has been told.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 for how long they are still known, ms   then the digests of the names
for i = 2, #ARGV do redis.call('PEXPIRE', KEYS[1] .. 'seen:' .. ARGV[i], ARGV[1]) end
return false
