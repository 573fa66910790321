-- wrk asks with a different key each time: the secrets in the file that is its argument, in their order, from the start again at the end.
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
