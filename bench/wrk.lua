-- Sends GETs of the paths in a file, one in a line, in turn; without paths, of the
-- address's own. Its last line of output is JSON.
local requests = {}
local next = 0

function init(arguments)
  for path in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
  if #requests > 0 then
    request = function()
      next = next % #requests + 1
      return requests[next]
    end
  end
end

function done(summary)
  local errors = summary.errors
  io.write(string.format('{"requests": %d, "microseconds": %d, "errors": %d}\n', summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
