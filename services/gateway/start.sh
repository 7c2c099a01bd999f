#!/bin/sh
# Start HAProxy as a master with workers. The owner of the directory (Sluice) gets the sockets; no other user can use them.
set -eu
owner="uid,$(stat -c %u /run/gateway),gid,$(stat -c %g /run/gateway)"
# Take over the listening sockets: with -x from the gateway that this one replaces, as long as its socket exists; otherwise
# from the copies that Sluice retains.
[ "${1-}" != -x ] || [ -S "$2" ] || shift 2
[ $# -gt 0 ] || [ ! -S /run/gateway/kept.sock ] || set -- -x /run/gateway/kept.sock
export SLUICE_TAKES_KEPT=1
exec haproxy -W -db -S "/run/gateway/master.sock,mode,600,$owner" -f /run/gateway/haproxy.cfg "$@"
