-- wrk sends each request with the next secret of the file that is its argument, and starts again at the end.
local requests, at = {}, 0

function init(arguments)
  for secret in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("GET", nil, {["x-api-key"] = secret})
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
