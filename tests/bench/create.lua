-- wrk creates a key with each request; its argument is the admin token.
function init(arguments)
  wrk.method = "POST"
  wrk.headers["authorization"] = "Bearer " .. arguments[1]
  wrk.headers["content-type"] = "application/json"
  wrk.body = '{"name": "bench", "expires_in": "90d", "scopes": {"reviews": "read", "webhooks": "write"}}'
end
