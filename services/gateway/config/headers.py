"""Rules for headers that no client and no instance may send through the gateway.

They apply on every frontend to the dashboard's session cookies, and to a Connection header that names other headers for the
instance to drop.
"""

from __future__ import annotations

from services.gateway.config.model import RUN_DIRECTORY

SCRIPT = "cookies.lua"
"""Name of the Lua script, a file beside haproxy.cfg.

The script is not in the image, so a gateway that is not upgraded yet loads it as well.
"""

STRIP_COOKIES = r"""-- Removes the session cookies of Sluice's dashboard: a browser sends them to every port of a host, and
-- takes them from every port. Called only where the name occurs in the header (services/gateway/config/headers.py).
local NAME = "sluice_session_"

-- Parsers differ in what they skip before a name: blanks, quotes, "=" of a cookie without a name, bytes above ASCII.
local function is_session(cookie)
  local name = cookie:gsub("^[^%w_]+", ""):gsub("^__Host%-", "")
  return name:find(NAME, 1, true) == 1
end

local function without_sessions(header)
  local kept, removed = {}, false
  for cookie in (header .. ";"):gmatch("([^;]*);") do
    if is_session(cookie) then
      removed = true
    else
      kept[#kept + 1] = cookie
    end
  end
  if not removed then
    return header
  end
  return (table.concat(kept, ";"):gsub("^%s+", ""))
end

core.register_action("strip_session_cookies", { "http-req" }, function(txn)
  local headers = txn.http:req_get_headers()["cookie"]
  txn.http:req_del_header("cookie")
  for n = 0, #headers do
    local left = without_sessions(headers[n])
    if left ~= "" then
      txn.http:req_add_header("cookie", left)
    end
  end
end)

core.register_action("drop_session_cookies", { "http-res" }, function(txn)
  local headers = txn.http:res_get_headers()["set-cookie"]
  txn.http:res_del_header("set-cookie")
  for n = 0, #headers do
    if not is_session(headers[n]) then
      txn.http:res_add_header("set-cookie", headers[n])
    end
  end
end)
"""


def script_lines() -> list[str]:
    """Return the lines of the global section that load the script."""
    return [f"    lua-load {RUN_DIRECTORY}/{SCRIPT}"]


def header_rules() -> list[str]:
    """Return the rules for every frontend.

    A request without such a header costs one search for the header. Lua runs only for the other requests.
    """
    is_upgrade = "{ req.hdr(connection) -m str -i upgrade }"
    return [
        # HAProxy has already removed close, keep-alive and upgrades to HTTP/2. Of the rest only an upgrade concerns an
        # instance: any other name would make the instance drop that header, for example the gateway's own X-Forwarded-For.
        f"    http-request del-header Connection unless {is_upgrade} {{ req.hdr(upgrade) -m found }}",
        "    http-request set-header Connection upgrade if { req.hdr(connection) -m found }",
        "    http-request lua.strip_session_cookies if { req.fhdr(cookie) -m sub sluice_session_ }",
        "    http-response lua.drop_session_cookies if { res.fhdr(set-cookie) -m sub sluice_session_ }",
    ]
