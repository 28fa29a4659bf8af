-- Appends entries to the audit.
-- KEYS[1]  the base of all keys of the queues
-- ARGV     1 retention, ms   then for each entry: the record, the correlation id
for i = 2, #ARGV, 2 do
  write_entry(ARGV[i], ARGV[i + 1], ARGV[1])
end
return false
