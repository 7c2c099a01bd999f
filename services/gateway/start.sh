#!/bin/sh
# HAProxy as master and workers. Its sockets belong to whoever owns the directory: to Sluice, and to nobody else.
set -eu
owner="uid,$(stat -c %u /run/gateway),gid,$(stat -c %g /run/gateway)"
# It takes over what others listen on: the gateway that it is the upgrade of, until that one has left, then Sluice's copies.
[ "${1-}" != -x ] || [ -S "$2" ] || shift 2
[ $# -gt 0 ] || [ ! -S /run/gateway/kept.sock ] || set -- -x /run/gateway/kept.sock
export SLUICE_TAKES_KEPT=1
exec haproxy -W -db -S "/run/gateway/master.sock,mode,600,$owner" -f /run/gateway/haproxy.cfg "$@"
