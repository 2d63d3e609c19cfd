#!/bin/bash
# SPDX-License-Identifier: MIT
# An image on a tmpfs keeps the memory of zones that are reset, writes into it again, and gives it back: after half a
# minute without a write, and at the end.
[ "$(df --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 1048576 ] || { echo "SKIP: no tmpfs with 1 GiB of room" && exit 77; }
export TMPDIR=/dev/shm
. "$(dirname "$0")/../functions.sh"
need_env ZNSD ZNSIMG ZNSPROBE
here=$(cd "$(dirname "$0")" && pwd)
tmpdir
. "$here/../daemon.sh"

used() { du -m disk.qcow2 | cut -f1; } # MiB

# fill ZONE PATTERN: a zone of 16 MiB, in writes of 128 KiB, and verified
fill()
{
	local verbs=() i

	for ((i = 0; i < 128; i++)); do
		verbs+=(write $(($1 * 4096 + i * 32)) 32 "$2")
	done
	for ((i = 0; i < 128; i++)); do
		verbs+=(verify $(($1 * 4096 + i * 32)) 32 "$2")
	done
	probe "${verbs[@]}" >/dev/null || fail "zone $1 cannot be written and read"
}

make_image disk.qcow2 size=256M,zone.size=16M,zone.mode=host-managed
start_znsd disk.qcow2,lba=4096

it "keeps what zones gave up, and needs no more for others"
for zone in 0 1 2 3; do
	fill $zone 1
done
full=$(used)
[ "$full" -ge 64 ] || fail "64 MiB take $full"
probe reset 0 reset 4096 reset 8192 flush >/dev/null || fail "cannot be reset"
[ "$(used)" -ge $((full - 1)) ] || fail "$(used) MiB left of $full"
for zone in 4 5; do
	fill $zone 2
done
[ "$(used)" -le $((full + 1)) ] || fail "$(used) MiB where $full are enough"

it "survives a kill with them"
kill -9 "$znsd_pid"
wait "$znsd_pid" 2>/dev/null
start_znsd disk.qcow2,lba=4096
probe verify 12288 32 1 verify 16384 32 2 verify 24544 32 2 verify 0 32 =0 >/dev/null || fail "not what was written"

it "gives back what nobody wants for half a minute"
fill 6 3
probe reset 16384 >/dev/null || fail "cannot be reset"
before=$(used)
for ((i = 0; i < 60 && $(used) >= before; i++)); do
	sleep 1
done
[ "$i" -ge 20 ] || fail "after $i s already"
[ "$(used)" -lt $((before - 8)) ] || fail "$(used) MiB left of $before"

it "gives back the rest at the end"
probe reset 20480 flush >/dev/null || fail "cannot be reset"
before=$(used)
stop_znsd || fail "znsd ended $?"
[ "$(used)" -lt $((before - 8)) ] || fail "$(used) MiB left of $before"
"$ZNSIMG" check disk.qcow2 >/dev/null || fail "the image is not sound: $?"
finish
