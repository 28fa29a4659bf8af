-- The end of a claim on a webhook's delivery.
--   KEYS[1]  the delivery          ARGV[1]  the claim's token
--   ARGV[2]  for how many milliseconds it is remembered as taken; 0 for not at all
-- Only the claim's owner may end it. If it has ended by itself meanwhile and nobody else holds it,
-- what was taken is remembered all the same. Returns 1 if anything was changed.
local held = redis.call('GET', KEYS[1])
local remember = tonumber(ARGV[2])
if held == ARGV[1] or (not held and remember > 0) then
  if remember > 0 then
    redis.call('SET', KEYS[1], 'done', 'PX', remember)
  else
    redis.call('DEL', KEYS[1])
  end
  return 1
end
return 0
