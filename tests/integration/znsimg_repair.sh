# SPDX-License-Identifier: MIT
# znsimg check -r: status, text and JSON of stock qemu-img where both can repair; then the rest.
. "$(dirname "$0")/../functions.sh"
need qemu-img qemu-io jq
need_env ZNSIMG
tmpdir

# fill IMAGE: some scattered data.
fill()
{
	qemu-io -f qcow2 -c 'write -P 1 0 300k' -c 'write -P 2 4M 1M' -c 'write -P 3 1M 64k' \
		-c 'write -z 2M 128k' -c 'write -P 4 600k 1k' "$1" >/dev/null
}

# image OPTIONS: makes base.qcow2 and sets variables with the offsets of its parts.
image()
{
	qemu-img create -q -f qcow2 -o "$1" base.qcow2 32M
	fill base.qcow2
	truncate -s +1M base.qcow2 # clusters that nobody uses
	l1=$((0x$(peek base.qcow2 40 8)))
	l2=$((0x$(peek base.qcow2 $l1 8) & 0xfffffffffffe00))
	data=$((0x$(peek base.qcow2 $l2 8) & 0xfffffffffffe00))
	reftable=$((0x$(peek base.qcow2 48 8)))
	refblock=$((0x$(peek base.qcow2 $reftable 8)))
	end=$(($(stat -c %s base.qcow2) - 1048576)) # of what is used
}

# expect_repair WHAT MODE: stock qemu-img and znsimg repair copies of bad.qcow2 with the same result.
expect_repair()
{
	local theirs

	cp bad.qcow2 ours.qcow2
	cp bad.qcow2 theirs.qcow2
	"$ZNSIMG" check -r "$2" ours.qcow2 >ours 2>ours.err
	ours=$?
	qemu-img check -f qcow2 -r "$2" theirs.qcow2 >theirs 2>theirs.err
	theirs=$?
	if [ "$2,$theirs" = leaks,1 ]; then # where it would have to make new refcounts, it gives up
		expect_equal $ours 2 "$1, -r leaks: status"
		return
	fi
	expect_equal $ours $theirs "$1, -r $2: status; $(head -3 ours.err theirs.err)"
	# The end of the image may differ: each allocates new clusters in its own way.
	expect_equal "$(grep -v '^Image end' ours)" "$(grep -v '^Image end' theirs)" "$1, -r $2: text"
	cp bad.qcow2 ours.qcow2
	cp bad.qcow2 theirs.qcow2
	expect_equal "$("$ZNSIMG" check -r "$2" --output=json ours.qcow2 2>/dev/null |
			jq -S 'del(.filename, ."image-end-offset")')" \
		"$(qemu-img check -r "$2" --output=json theirs.qcow2 2>/dev/null |
			jq -S 'del(.filename, ."image-end-offset")')" "$1, -r $2: json"
}

it "has the result of stock qemu-img"
image cluster_size=64k
# what | offset | bytes
while IFS='|' read -r what offset bytes; do
	cp base.qcow2 bad.qcow2
	poke bad.qcow2 $((offset)) "$bytes"
	for mode in leaks all; do
		expect_repair "$what" $mode
		expect_status $ours qemu-img check -f qcow2 ours.qcow2
		expect_status $ours "$ZNSIMG" check ours.qcow2
	done
	expect_status 0 qemu-img compare -f qcow2 -F qcow2 ours.qcow2 base.qcow2
done <<EOF
nothing|0|514649fb
a leaked cluster|refblock + 2 * (end / 65536 + 5)|0001
leaked clusters in rows|refblock + 2 * (end / 65536 + 5)|000100010001000100000001
a data cluster counted twice|refblock + 2 * (data / 65536)|0002
a refcount too high|refblock + 2 * 0|0002
a data cluster without a refcount|refblock + 2 * (data / 65536)|0000
an L2 table without a refcount|refblock + 2 * (l2 / 65536)|0000
the L1 table without a refcount|refblock + 2 * (l1 / 65536)|0000
the refcount block without a refcount|refblock + 2 * (refblock / 65536)|0000
an L2 entry without COPIED|l2|$(be64 $data)
an L1 entry without COPIED|l1|$(be64 $l2)
leaks and a count too low|refblock + 2 * (end / 65536 - 1)|000000010001
EOF

it "repairs a zoned image, in which stock qemu-img then finds only the write-pointer table leaked"
for options in cluster_size=64k cluster_size=512,refcount_bits=1 cluster_size=4k,zone.layout=latest; do
	"$ZNSIMG" create -q -o "$options,zone.size=1M,zone.conventional_zones=2" z.qcow2 32M
	clear_zoned_bit z.qcow2
	qemu-io -f qcow2 -c 'write -P 5 8M 300k' -c 'write -P 6 20M 1M' z.qcow2 >/dev/null
	poke z.qcow2 79 20
	expect_status 0 "$ZNSIMG" check -q z.qcow2
	l1=$((0x$(peek z.qcow2 40 8)))
	table=$((0x$(peek z.qcow2 48 8)))
	poke z.qcow2 48 "$(be64 $((1 << 40)))" # no refcounts
	poke z.qcow2 $((l1 + 8 * 3)) "$(be64 $((1 << 63 | table)))"
	expect_status 1 "$ZNSIMG" check z.qcow2
	expect_err "znsimg check -r all"
	expect_status 0 "$ZNSIMG" check -r all z.qcow2
	expect_out '^The following inconsistencies were found and repaired:$'
	before=$(md5sum <z.qcow2)
	expect_status 0 "$ZNSIMG" check -r all z.qcow2
	expect_out '^No errors were found on the image.$'
	expect_equal "$(md5sum <z.qcow2)" "$before" "a second repair wrote"
	clear_zoned_bit z.qcow2
	expect_status 3 qemu-img check -f qcow2 z.qcow2
	expect_out '^1 leaked clusters' || cat out err >&2
	expect_status 0 qemu-io -f qcow2 -c 'read -P 6 20M 1M' z.qcow2
done

it "reports what is lost"
"$ZNSIMG" create -q -o zone.size=1M z.qcow2 32M
poke z.qcow2 $((0x40000)) "$(be64 $((1 << 63 | 1 << 40)))"
expect_status 0 "$ZNSIMG" check -r all z.qcow2
expect_err '^Repairing L1 entry 0: dropped, all data in 33554432 bytes of the disk at 0x0 is lost$'
expect_err '^DATA LOSS: 33554432 bytes'
expect_status 0 "$ZNSIMG" check z.qcow2

it "refuses an image that another program has open"
if command -v qemu-storage-daemon >/dev/null; then
	cp bad.qcow2 busy.qcow2
	before=$(md5sum <busy.qcow2)
	qemu-storage-daemon --blockdev driver=file,filename=busy.qcow2,node-name=f,read-only=on \
		--blockdev driver=qcow2,file=f,node-name=q,read-only=on --pidfile pid >/dev/null 2>&1 &
	daemon=$!
	for _ in $(seq 100); do
		[ -s pid ] && break
		sleep 0.05
	done
	expect_status 1 "$ZNSIMG" check -r all busy.qcow2
	expect_err "lock"
	kill $daemon
	wait $daemon
	expect_equal "$(md5sum <busy.qcow2)" "$before" "the image changed"
	expect_status 0 "$ZNSIMG" check -r all busy.qcow2
fi

it "does not discard the shadow of a killed znsd"
"$ZNSIMG" create -q -o zone.size=1M killed.qcow2 8M
poke killed.qcow2 88 8000000000000000
expect_status 1 "$ZNSIMG" check -r leaks killed.qcow2
expect_err "shadow.*start znsd.*--discard-shadow"
expect_equal "$(peek killed.qcow2 88 8)" 8000000000000000 "the mark is gone"
expect_status 0 "$ZNSIMG" check -r leaks --discard-shadow killed.qcow2

finish
