#!/bin/bash
# SPDX-License-Identifier: MIT
# What znsd writes is qcow2: a copy with the zoned bit cleared satisfies stock qemu-img check with
# exactly the write-pointer table leaked, and qemu-io reads back the data.
. "$(dirname "$0")/../functions.sh"
need qemu-img qemu-io
need_env ZNSD ZNSIMG ZNSPROBE
here=$(cd "$(dirname "$0")" && pwd)
tmpdir
. "$here/../daemon.sh"

make_image disk.qcow2
start_znsd disk.qcow2,lba=512
# LBAs of 512 bytes; a zone has 131072 of them.
probe write 0 4096 =0xa1 write 131072 100 =0xa2 append 262144 8 =0xa3 append 262144 8 =0xa4 \
	write 1441792 8 =0xa5 write 393216 256 =0xa6 reset 393216 write 393216 16 =0xa7 \
	write 524288 512 =0xa8 finish 524288 >/dev/null || fail "probe ended $?"
stop_znsd || fail "znsd ended $?"

it "satisfies its own check"
expect_status 0 "$ZNSIMG" check disk.qcow2

cp disk.qcow2 copy.qcow2
clear_zoned_bit copy.qcow2

it "leaks the write-pointer table and nothing else, says qemu-img check"
expect_status 3 qemu-img check -f qcow2 copy.qcow2
# 12 entries of 8 bytes: one cluster.
expect_out '^1 leaked clusters were found'
! grep -qi 'corrupt' "$tmp/out" "$tmp/err" || fail "qemu-img check speaks of corruption"

# reads PATTERN OFFSET LENGTH
reads()
{
	qemu-io -r -f qcow2 -c "read -P $1 $2 $3" copy.qcow2 >"$tmp/out" 2>&1
	if grep -q 'Pattern verification failed' "$tmp/out" || ! grep -q "^read $3/" "$tmp/out"; then
		fail "$(cat "$tmp/out")"
	fi
}

it "reads back with qemu-io"
M=1048576
reads 0xa1 0 $((4096 * 512))
reads 0xa2 $((64 * M)) $((100 * 512))
reads 0xa3 $((128 * M)) 4096
reads 0xa4 $((128 * M + 4096)) 4096
reads 0xa5 $((704 * M)) 4096
reads 0xa7 $((192 * M)) 8192
reads 0xa8 $((256 * M)) $((512 * 512))

it "has zeroes above the write pointers, for a reader that ignores them"
reads 0 $((4096 * 512)) $((62 * M))
reads 0 $((64 * M + 100 * 512)) 65536
reads 0 $((192 * M + 8192)) $((63 * M))
reads 0 $((256 * M + 512 * 512)) $((63 * M))

it "reports the same zones after a restart"
start_znsd disk.qcow2,lba=512
probe report | tr -d '\n' | sed 's/},{/}\n{/g' | sed 's/.*\[//; s/\].*//' |
	grep -o '"slba":[0-9]*,"wp":[0-9]*,"cap":[0-9]*,"state":[0-9]*' >live
stop_znsd || fail "znsd ended $?"
expect_equal "$(wc -l <live)" 12
expect_equal "$(sed -n 2p live)" '"slba":131072,"wp":131172,"cap":131072,"state":4'
expect_equal "$(sed -n 5p live | sed 's/.*state/state/')" 'state":14'
expect_equal "$(sed -n 6p live)" '"slba":655360,"wp":655360,"cap":131072,"state":1'

finish
