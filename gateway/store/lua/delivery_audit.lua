-- Stands before the scripts that write into the audit. KEYS[1] is the base of all keys of the queues.
--
-- Appends an entry, and notes it under its transaction for as long as entries are kept (ms). `first`
-- if it is the first one of its transaction, as a rule. Returns the entry's id; nothing is written of
-- an empty record, and false returned.
local function write_entry(record, correlation_id, retention, first)
  if record == '' then return false end
  local id = redis.call('XADD', KEYS[1] .. 'audit', '*', 'r', record)
  local entries = KEYS[1] .. 'entries:' .. correlation_id
  if first and redis.call('SET', entries, id, 'PX', retention, 'NX') then return id end
  -- Somebody may give all that he sends one id: what is listed of a transaction is bounded.
  if redis.call('APPEND', entries, ' ' .. id) > 262144 then
    redis.call('SET', entries, redis.call('GETRANGE', entries, 0, 131071))
  end
  redis.call('PEXPIRE', entries, retention)
  return id
end

