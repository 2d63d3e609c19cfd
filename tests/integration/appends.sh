#!/bin/bash
# SPDX-License-Identifier: MIT
# An append into an open zone costs about one pwrite, and no sync: metadata stays off its path.
. "$(dirname "$0")/../functions.sh"
need strace
need_env ZNSD ZNSIMG ZNSPROBE
[ -z "${SANITIZE:-}" ] || skip "a sanitizer's own system calls would be counted"
strace -o /dev/null true 2>/dev/null || skip "strace may not trace here"
here=$(cd "$(dirname "$0")" && pwd)
tmpdir
. "$here/../daemon.sh"

make_image disk.qcow2 size=256M,zone.size=64M,zone.mode=host-managed
real=$ZNSD
cat >traced.sh <<END
#!/bin/bash
exec strace -f -qq -e trace=pwrite64,pwritev,pwritev2,fdatasync,fsync -o "$tmp/trace" "$real" "\$@"
END
chmod +x traced.sh
ZNSD=$tmp/traced.sh
start_znsd disk.qcow2,lba=4096

appends=()
for ((i = 0; i < 10000; i++)); do
	appends+=(append $((i % 2 * 16384)) 1 =0x5a)
done
probe "${appends[@]:0:8}" >/dev/null || fail "the first appends"	# open the two zones
before=$(wc -l <"$tmp/trace")
begun=$SECONDS
probe "${appends[@]}" >/dev/null || fail "probe ended $?"
tail -n +$((before + 1)) "$tmp/trace" >appending
took=$((SECONDS - begun))
pkill -TERM -P "$znsd_pid" -x znsd
wait "$znsd_pid"
znsd_pid=
writes=$(grep -c 'pwrite' appending)
syncs=$(grep -cE 'f(data)?sync' appending)
echo "tally: appends appends=10000 pwrites=$writes syncs=$syncs"

it "writes about once an append"
[ "$writes" -ge 10000 ] && [ "$writes" -le 10200 ] || fail "$writes pwrites for 10000 appends"

# What is written back in the background is not the appends': a busy drive does it every 5 s.
it "does not sync"
[ "$syncs" -le $((8 + took)) ] || fail "$syncs syncs in $took s"

finish
