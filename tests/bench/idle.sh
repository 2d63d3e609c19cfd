#!/bin/bash
# SPDX-License-Identifier: MIT
# 128 connections that have been busy and are silent now: no processor time, and no thread ever wakes up, though it
# looked for more while they were.
. "$(dirname "$0")/../functions.sh"
need_env ZNSD ZNSIMG ZNSBENCH
here=$(cd "$(dirname "$0")" && pwd)
tmpdir
. "$here/../daemon.sh"

[ -z "${SANITIZE:-}" ] || skip "sanitizers have threads of their own"

# Nanoseconds on a processor, and switches to and from one, of all threads.
ran()
{
	awk '{ sum += $1 } END { printf "%.0f\n", sum }' "/proc/$znsd_pid"/task/*/schedstat
}

switches()
{
	awk '/ctxt_switches/ { sum += $2 } END { print sum }' "/proc/$znsd_pid"/task/*/status
}

make_image disk.qcow2 size=64M,zone.size=2M,zone.mode=host-managed
start_znsd disk.qcow2 --threads 2 --busy-poll 100
mkfifo bench
"$ZNSBENCH" --rw mixed --prefill --zones 4 --depth 2 --conns 127 --idle 40 127.0.0.1 "$port" "$nqn" >bench &
host=$!
trap 'kill "$host" 2>/dev/null; kill_znsd; rm -rf "$tmp"' EXIT
[ "$(timeout 60 head -1 bench)" = idle ] || fail "znsbench says nothing"
sleep 6 # written back, buffers given back

it "has 128 connections"
expect_equal "$(find "/proc/$znsd_pid/fd" -lname 'socket:*' | wc -l)" 129 "sockets, one of which listens"

it "does nothing at all"
before=$(ran) woken=$(switches)
sleep 5
expect_equal "$(($(ran) - before))" 0 "nanoseconds of processor time in five seconds"
expect_equal "$(($(switches) - woken))" 0 "context switches"

it "and still serves"
kill -0 "$host" || fail "znsbench is gone"
kill "$host"
wait "$host" 2>/dev/null
"$ZNSPROBE" 127.0.0.1 "$port" "$nqn" flush || fail "it does not"
stop_znsd || fail "znsd ended $?"
finish
