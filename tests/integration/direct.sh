#!/bin/bash
# SPDX-License-Identifier: MIT
# --cache none: data goes by the loop's ring, no thread waits for it, and it is there after a restart.
# Where the kernel has no ring to give, threads do the same.
. "$(dirname "$0")/../functions.sh"
need strace
need_env ZNSD ZNSIMG ZNSPROBE
[ -z "${SANITIZE:-}" ] || skip "a sanitizer's own system calls would be counted"
strace -o /dev/null true 2>/dev/null || skip "strace may not trace here"
here=$(cd "$(dirname "$0")" && pwd)
disk_tmpdir # a file in memory is read without a ring
. "$here/../daemon.sh"
dd if=/dev/zero of=probe bs=4096 count=1 oflag=direct status=none 2>/dev/null ||
	skip "$tmp has no O_DIRECT"

real=$ZNSD
# serve ARG...: under strace with ARGs; what it does is in $tmp/trace, what it did before is not.
serve()
{
	cat >traced.sh <<END
#!/bin/bash
exec strace -f -qq $* -o "$tmp/trace" \
	-e trace=pread64,preadv2,pwrite64,pwritev,fdatasync,io_uring_setup,io_uring_enter "$real" "\$@"
END
	chmod +x traced.sh
	rm -f trace
	ZNSD=$tmp/traced.sh
	start_znsd --shadow none --cache none disk.qcow2,lba=4096
}

stop_traced()
{
	pkill -TERM -P "$znsd_pid" -x znsd
	wait "$znsd_pid" || fail "znsd ended $?"
	znsd_pid=
}

# count PATTERN: such calls since the last mark.
count()
{
	tail -n +$((marked + 1)) trace | grep -cE -- "$1"
}

mark()
{
	marked=$(wc -l <trace)
}

commands=()
for ((i = 0; i < 200; i++)); do
	commands+=(append $((i % 2 * 16384)) 1 "=$((i + 1))")
done
verify()
{
	local zone i reads=()
	for ((i = 0; i < 200; i++)); do
		reads+=(verify $((i % 2 * 16384 + i / 2)) 1 "=$((i + 1))")
	done
	probe "${reads[@]}" >out || fail "what was written does not come back"
}

make_image disk.qcow2 size=256M,zone.size=64M,zone.mode=host-managed
serve
probe "${commands[@]:0:16}" >out || fail "the first appends"	# workers open the two zones
grep -q 'no io_uring here' znsd.log && skip "no io_uring here"
grep -q 'io_uring_setup(.*= [0-9]' trace || fail "nobody asks for a ring"

it "writes by the ring"
mark
probe "${commands[@]:16}" >out || fail "probe ended $?"
enters=$(count io_uring_enter)
writes=$(count 'pwrite(64|v)\(')
[ "$enters" -ge 196 ] && [ "$enters" -le 220 ] || fail "$enters io_uring_enter for 196 appends"
[ "$writes" -le 20 ] || fail "$writes pwrites"	# of a write-back, if there was one

it "reads by the ring"
mark
verify
enters=$(count io_uring_enter)
[ "$enters" -ge 200 ] && [ "$enters" -le 220 ] || fail "$enters io_uring_enter for 200 reads"
expect_equal "$(count 'pread(64|v2)\(')" 0

it "syncs, when told, what the ring has written"
probe flush || fail "flush"
mark
probe append 0 1 =201 flush >out || fail "append, flush"
order=$(tail -n +$((marked + 1)) trace | grep -oE 'io_uring_enter|fdatasync' | head -2 | tr '\n' ' ')
expect_equal "$order" "io_uring_enter fdatasync "

it "keeps all of it"
stop_traced
"$ZNSIMG" check disk.qcow2 >out || fail "znsimg check"
serve
verify
probe verify 100 1 =201 >out || fail "the last append"
stop_traced

it "does without where it may not have one"
serve -e inject=io_uring_setup:error=EPERM
verify
probe append 16384 1 =202 flush verify 16484 1 =202 >out || fail "append and verify"
grep -q 'pwrite64(' trace || fail "nobody wrote"
expect_equal "$(grep -c io_uring_setup trace)" 1 "attempts"
grep -q io_uring_enter trace && fail "a ring all the same"
grep -q 'no io_uring here' znsd.log || fail "it does not say so"
stop_traced

finish
