-- For wrk: cycles through the paths given after `--`, and prints its figures as one JSON line.
-- In front of the paths stands the body to post, or nothing.
local requests, next_one = {}, 0

function init(args)
  local body = args[1]
  for at = 2, #args do
    if body ~= "" then
      table.insert(requests, wrk.format("POST", args[at], nil, body))
    else
      table.insert(requests, wrk.format("GET", args[at]))
    end
  end
  if #requests > 1 then
    request = function()
      next_one = next_one % #requests + 1
      return requests[next_one]
    end
  elseif #requests == 1 then
    request = function() return requests[1] end
  end
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "bytes": %d, "connect": %d, "read": %d, "write": %d,'
      .. ' "status": %d, "timeout": %d, "p50_us": %d, "p99_us": %d}\n',
    summary.requests, summary.duration, summary.bytes, errors.connect, errors.read, errors.write,
    errors.status, errors.timeout, latency:percentile(50), latency:percentile(99)))
end
