#!/bin/bash
# SPDX-License-Identifier: MIT
# Connected and idle: no CPU at all over ten seconds, and little memory.
. "$(dirname "$0")/../functions.sh"
need_env ZNSD ZNSIMG ZNSPROBE
here=$(cd "$(dirname "$0")" && pwd)
tmpdir
. "$here/../daemon.sh"

[ -z "${SANITIZE:-}" ] || skip "sanitizers have threads and memory of their own"

ticks()
{
	# utime and stime, fields 14 and 15; the name in field 2 has no spaces.
	cut -d' ' -f14,15 "/proc/$znsd_pid/stat" | awk '{ print $1 + $2 }'
}

make_image disk.qcow2 size=4G,zone.size=64M,zone.mode=host-managed
start_znsd disk.qcow2,lba=512

# A host that writes something, then keeps its queues and is silent.
probe write 0 4096 1 flush sleep 30 >/dev/null &
host=$!
trap 'kill "$host" 2>/dev/null; kill_znsd; rm -rf "$tmp"' EXIT
sleep 6	# written back, buffers given back

it "burns no CPU"
before=$(ticks)
sleep 10
expect_equal "$(($(ticks) - before))" 0 "ticks in ten seconds"

it "takes less than 16 MiB"
rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$znsd_pid/status")
[ "$rss" -lt 16384 ] || fail "resident: $rss KiB"

kill "$host"
wait "$host" 2>/dev/null
stop_znsd || fail "znsd ended $?"
finish
