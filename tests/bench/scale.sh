#!/bin/bash
# SPDX-License-Identifier: MIT
# What grows with the drive, and how much: the time to open it by its zones, the memory by its zones and connections.
# Time is the processor's, which other programs do not change.
. "$(dirname "$0")/../functions.sh"
need_env ZNSD ZNSIMG ZNSBENCH
here=$(cd "$(dirname "$0")" && pwd)
tmpdir
. "$here/../daemon.sh"

[ -z "${SANITIZE:-}" ] || skip "sanitizers cost time and memory of their own"

# Milliseconds of processor time that "$@" takes, the least of three; 100000 when it fails.
cpu_ms()
{
	local TIMEFORMAT='%U %S' best=100000 ms

	for _ in 1 2 3; do
		ms=$({ time "$@" >/dev/null 2>&1; } 2>&1 && true) || return
		ms=$(awk '{ printf "%d", ($1 + $2) * 1000 }' <<<"$ms")
		((ms >= best)) || best=$ms
	done
	echo "$best"
}

opens() # SIZE ZONE-SIZE MS
{
	it "opens $1 in zones of $2, serves, closes"
	make_image big.qcow2 "size=$1,zone.size=$2,zone.mode=host-managed"
	expect_status 0 "$ZNSD" --listen 127.0.0.1:0 --run true big.qcow2
	took=$(cpu_ms "$ZNSD" --listen 127.0.0.1:0 --run true big.qcow2)
	echo "$current: $took ms"
	((took <= $3)) || fail "in $took ms, not $3"
	rm big.qcow2
}

opens 1T 64M 50  # 16,384 zones
opens 1T 1M 500 # 2^20

resident() # KiB that are the daemon's own: not the page cache that it has mapped
{
	awk '/^RssAnon:/ { print $2 }' "/proc/$znsd_pid/status"
}

# In $kib: with CONNS connections, which have been busy and are silent, on a drive of SIZE.
serves() # CONNS SIZE ZONE-SIZE
{
	make_image disk.qcow2 "size=$2,zone.size=$3,zone.mode=host-managed"
	start_znsd disk.qcow2
	rm -f bench
	mkfifo bench
	"$ZNSBENCH" --rw append --zones 4 --depth 8 --conns "$1" --idle 60 127.0.0.1 "$port" "$nqn" >bench &
	host=$!
	trap 'kill "$host" 2>/dev/null; kill_znsd; rm -rf "$tmp"' EXIT
	[ "$(timeout 60 head -1 bench)" = idle ] || fail "znsbench says nothing"
	sleep 6 # written back, buffers given back
	kib=$(resident)
	kill "$host"
	wait "$host" 2>/dev/null
	stop_znsd || fail "znsd ended $?"
	rm disk.qcow2
}

it "needs little memory for a connection"
serves 1 4G 64M
one=$kib
serves 101 4G 64M
each=$(((kib - one) / 100))
echo "$current: $each KiB; with one $one KiB"
((each > 0 && each <= 96)) || fail "$each KiB"

it "needs little memory for a zone"
serves 1 64G 1M # 65,536
each=$(((kib - one) * 1024 / 65536))
echo "$current: $each bytes"
((each > 0 && each <= 200)) || fail "$each bytes"
finish
