#!/bin/sh
# HAProxy as master and workers. Its sockets belong to whoever owns the directory: to Sluice, and to nobody else.
set -eu
owner="uid,$(stat -c %u /run/gateway),gid,$(stat -c %g /run/gateway)"
exec haproxy -W -db -S "/run/gateway/master.sock,mode,600,$owner" -f /run/gateway/haproxy.cfg "$@"
