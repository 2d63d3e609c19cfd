#!/bin/bash
# SPDX-License-Identifier: MIT
# A disk that is full (here: a file that may not grow) fails the writes that need room, and nothing
# else: what was acknowledged stays, reads go on, a reset makes room, the image is sound.
. "$(dirname "$0")/../functions.sh"
need_env ZNSD ZNSIMG ZNSPROBE
here=$(cd "$(dirname "$0")" && pwd)
tmpdir
. "$here/../daemon.sh"

make_image disk.qcow2 size=256M,zone.size=4M,zone.mode=host-managed

# The file may have 20 MiB; znsd ignores the signal that comes with such a limit.
real=$ZNSD
cat >limited.sh <<END
#!/bin/bash
ulimit -f $((20 * 1024))
exec "$real" "\$@"
END
chmod +x limited.sh
ZNSD=$tmp/limited.sh
start_znsd disk.qcow2,lba=512

it "fails the write for which there is no room"
written=0
for zone in 0 1 2 3 4 5 6 7; do
	probe write $((zone * 8192)) 8192 =0x$((10 + zone)) >/dev/null 2>"$tmp/err" || break
	written=$((written + 1))
done
[ "$written" -ge 2 ] && [ "$written" -le 5 ] || fail "$written zones were written"
expect_err 'status 0x'

it "keeps and serves what was written"
for ((zone = 0; zone < written; zone++)); do
	probe verify $((zone * 8192)) 8192 =0x$((10 + zone)) || fail "zone $zone"
done

it "makes room by a reset"
probe reset 0 flush || fail "reset"
probe reset $((written * 8192)) flush || fail "reset of the zone that failed"
probe write 0 4096 =0x77 verify 0 4096 =0x77 || fail "write after the reset"

it "ends well and leaves a sound image"
stop_znsd || fail "znsd ended $?"
"$ZNSIMG" check disk.qcow2 >"$tmp/out" 2>&1
status=$?
[ $status = 0 ] || [ $status = 3 ] || fail "check ends $status: $(cat "$tmp/out")"

it "has it all after a restart without the limit"
ZNSD=$real
start_znsd disk.qcow2,lba=512
probe verify 0 4096 =0x77 || fail "zone 0"
for ((zone = 1; zone < written; zone++)); do
	probe verify $((zone * 8192)) 8192 =0x$((10 + zone)) || fail "zone $zone"
done
stop_znsd || fail "znsd ended $?"

finish
