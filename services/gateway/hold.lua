-- Queue requests of a service without an available instance until an instance serves. Time and number are limited.
-- Arguments: the maximum number of queued requests of one service, and of all services.
local PER_SERVICE, IN_ALL = ...
PER_SERVICE, IN_ALL = tonumber(PER_SERVICE), tonumber(IN_ALL)
local SHORT, LONG, MANY = 20, 100, 100 -- SHORT, LONG: milliseconds between two checks; LONG applies above MANY queued requests

local live = Map.new("/run/gateway/live.map", Map._str)
local patience = Map.new("/run/gateway/patience.map", Map._str)
local waiting = {} -- service -> request -> time of its last check; a request whose client has gone is never reported
local held, in_all, stopping = {}, 0, false

local function now()
  local time = core.now()
  return time.sec * 1000 + time.usec / 1000
end

local function serves(service)
  local backend = core.backends[live:lookup(service) or ""]
  return backend ~= nil and backend:get_srv_act() > 0
end

local function count()
  local fresh = now() - 3 * LONG - 500
  in_all = 0
  for service, requests in pairs(waiting) do
    held[service] = 0
    for request, looked in pairs(requests) do
      if looked < fresh then
        requests[request] = nil
      else
        held[service] = held[service] + 1
      end
    end
    if held[service] == 0 then
      waiting[service], held[service] = nil, nil
    end
    in_all = in_all + (held[service] or 0)
  end
end

core.register_task(function()
  while true do
    if in_all > 0 then
      count()
      stopping = core.get_info()["Stopping"] == 1
    end
    core.msleep(LONG)
  end
end)

-- Set txn.held to the reason if the request leaves the queue without an available instance: "full", "late", or "moved" (a
-- newer worker has taken over, and only that worker gets new instances).
core.register_action("hold", { "http-req" }, function(txn)
  local service = txn:get_var("txn.service") or ""
  if serves(service) then
    return
  end
  if (held[service] or 0) >= PER_SERVICE or in_all >= IN_ALL then
    txn:set_var("txn.held", "full")
    return
  end
  held[service], in_all = (held[service] or 0) + 1, in_all + 1
  local requests, request = waiting[service] or {}, {}
  waiting[service] = requests
  local deadline = now() + (tonumber(patience:lookup(service)) or 0)
  local outcome
  repeat
    local time = now()
    if stopping then
      outcome = "moved"
    elseif time >= deadline then
      outcome = "late"
    else
      requests[request] = time
      core.msleep(in_all > MANY and LONG or SHORT)
    end
  until outcome or serves(service)
  if outcome then
    txn:set_var("txn.held", outcome)
  end
  requests[request] = nil
  held[service], in_all = math.max((held[service] or 0) - 1, 0), math.max(in_all - 1, 0)
end)

core.register_cli({ "show", "held" }, "queued requests of each service", function(applet)
  count()
  for service, number in pairs(held) do
    applet:send(service .. " " .. number .. "\n")
  end
  applet:send("\n")
end)
