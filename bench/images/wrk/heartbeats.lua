-- A heartbeat of each of the 1,000 instances in turn (bench/registry.py).
local turn = 0
request = function()
  turn = (turn + 1) % 1000
  return wrk.format("PUT", "/eureka/apps/APP" .. turn % 50 .. "/host" .. turn .. "?status=UP&lastDirtyTimestamp=1")
end
