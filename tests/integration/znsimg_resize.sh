# SPDX-License-Identifier: MIT
# znsimg resize: the output of stock qemu-img on plain images; zones added and removed; what is refused.
. "$(dirname "$0")/../functions.sh"
need qemu-img qemu-io jq
need_env ZNSIMG
tmpdir

size_of()
{
	"$ZNSIMG" info --output=json "$1" | jq '."virtual-size"'
}

it "answers as stock qemu-img does on plain images"
qemu-img create -q -f qcow2 theirs.qcow2 4M
cp theirs.qcow2 ours.qcow2
while read -r arguments; do
	# shellcheck disable=SC2086
	"$ZNSIMG" resize ${arguments//FILE/ours.qcow2} >ours 2>ours.err
	ours=$?
	# shellcheck disable=SC2086
	qemu-img resize ${arguments//FILE/theirs.qcow2} >theirs 2>theirs.err
	expect_equal $ours $? "$arguments: status; $(head -2 ours.err theirs.err)"
	expect_equal "$(cat ours)" "$(cat theirs)" "$arguments: text"
	expect_equal "$(size_of ours.qcow2)" "$(size_of theirs.qcow2)" "$arguments: size"
	qemu-img check -q -f qcow2 ours.qcow2 || fail "$arguments: stock qemu-img finds it unsound"
done <<'EOF'
FILE +1M
-f qcow2 FILE 8M
-q FILE +512
--shrink FILE -1M
FILE --shrink 3M
FILE 3M
FILE +0
FILE -1M
FILE 1M
FILE 1000
FILE +1000
FILE 0
--shrink FILE -99G
FILE 1x
FILE +-1M
FILE 1E
FILE 64G
--shrink FILE 1M
EOF
expect_status 1 "$ZNSIMG" resize ours.qcow2 1k
expect_err '^znsimg: Use the --shrink option to perform a shrink operation.$'
expect_err '^znsimg: warning: Shrinking an image will delete all data beyond'

it "keeps the data of plain images; new space reads as zeroes"
for options in cluster_size=512,refcount_bits=64 cluster_size=4k,refcount_bits=1 cluster_size=64k cluster_size=2M \
	compat=0.10; do
	rm -f p.qcow2
	qemu-img create -q -f qcow2 -o $options p.qcow2 6M
	qemu-io -f qcow2 -c 'write -P 1 0 6M' p.qcow2 >/dev/null
	expect_status 0 "$ZNSIMG" resize -q p.qcow2 50M
	expect_status 0 "$ZNSIMG" resize -q --shrink p.qcow2 5120512
	expect_status 0 "$ZNSIMG" resize -q p.qcow2 600M
	expect_status 0 qemu-img check -f qcow2 p.qcow2
	expect_status 0 qemu-io -f qcow2 -c 'read -P 1 0 5120512' -c 'read -P 0 5120512 594879488' p.qcow2
	expect_out '^read 594879488/594879488' || cat out
	grep -q 'verification failed' out err && fail "$options: $(grep verification out err | head -2)"
done

# The clusters that stock qemu-img must find leaked in a copy of $1 with the zoned bit cleared.
wp_clusters()
{
	local at=112 magic len zones offset cluster=$((1 << 0x$(peek "$1" 20 4)))

	while magic=$(peek "$1" $at 4) && [ "$magic" != 007a6264 ]; do
		[ "$magic" != 00000000 ] || return
		at=$((at + 8 + (0x$(peek "$1" $((at + 4)) 4) + 7) / 8 * 8))
	done
	len=$((0x$(peek "$1" $((at + 4)) 4)))
	zones=$((0x$(peek "$1" $((at + 12)) 4)))
	offset=$((0x$(peek "$1" $((at + (len == 44 ? 32 : 48))) 8)))
	seq $((offset / cluster)) $(((offset + zones * 8 - 1) / cluster))
}

# expect_sound IMAGE ZONES: no errors, ZONES zones; stock qemu-img finds only the write-pointer table leaked.
expect_sound()
{
	local got

	expect_status 0 "$ZNSIMG" check "$1"
	expect_equal "$("$ZNSIMG" zones --format=csv "$1" | tail -n +2 | wc -l)" "$2" "$1: zones"
	cp "$1" cleared.qcow2
	clear_zoned_bit cleared.qcow2
	qemu-img check -f qcow2 cleared.qcow2 >out 2>err
	[ $? = 3 ] || fail "$1: qemu-img check: $(cat out err)"
	got=$(sed -n 's/^Leaked cluster \([0-9]*\) refcount=1 reference=0$/\1/p' err)
	expect_equal "$got" "$(wp_clusters "$1")" "$1: leaked clusters"
	qemu-io -f qcow2 -c 'read -P 5 4M 64k' -c 'read -P 0 5M 3M' cleared.qcow2 >out 2>&1
	grep -q 'verification failed\|error' out && fail "$1: $(grep 'failed\|error' out)"
}

it "adds and removes zones; stock qemu-img finds only the write-pointer table leaked"
for options in cluster_size=512,refcount_bits=64 cluster_size=1k,zone.layout=latest cluster_size=4k \
	cluster_size=8k,zone.conventional_zones=2,refcount_bits=1 cluster_size=64k \
	cluster_size=64k,zone.layout=latest,zone.conventional_zones=1 cluster_size=1M; do
	"$ZNSIMG" create -q -o "$options,zone.size=1M" z.qcow2 8M || fail "$options: not made"
	# 64 KiB at the start of zone 4, and its write pointer
	clear_zoned_bit z.qcow2
	qemu-io -f qcow2 -c 'write -P 5 4M 64k' z.qcow2 >/dev/null
	poke z.qcow2 79 20
	table=$(($(wp_clusters z.qcow2 | head -1) * (1 << 0x$(peek z.qcow2 20 4))))
	poke z.qcow2 $((table + 8 * 4)) "$(be64 $((4 * 1048576 + 65536)))"
	expect_sound z.qcow2 8
	expect_status 0 "$ZNSIMG" resize z.qcow2 +1M
	expect_out '^Image resized.$'
	expect_sound z.qcow2 9
	expect_status 0 "$ZNSIMG" resize -q -f qcow2 z.qcow2 900M
	expect_equal "$(cat out err)" "" "-q"
	expect_sound z.qcow2 900
	expect_status 0 "$ZNSIMG" resize --shrink z.qcow2 -890M
	expect_sound z.qcow2 10
	expect_status 1 "$ZNSIMG" resize --shrink z.qcow2 3M
	expect_err 'zone 4 is not empty .* at least 5242880' || echo "    ($options)" >&2
	expect_status 0 "$ZNSIMG" resize z.qcow2 --shrink 8M
	expect_sound z.qcow2 8
done

it "keeps the geometry, the limits and the identity"
"$ZNSIMG" create -q -o zone.size=1M,zone.capacity=768k,zone.max_open_zones=3,zone.max_active_zones=5 z.qcow2 8M
"$ZNSIMG" info --output=json z.qcow2 | jq -S '."format-specific".data | del(.zone."nr-zones")' >before
expect_status 0 "$ZNSIMG" resize z.qcow2 100M
"$ZNSIMG" info --output=json z.qcow2 | jq -S '."format-specific".data | del(.zone."nr-zones")' >after
expect_equal "$(diff before after)" ""

it "makes a short last zone whole"
"$ZNSIMG" create -q -o zone.size=1M s.qcow2 2600k 2>/dev/null
expect_status 1 "$ZNSIMG" resize s.qcow2 +1M
expect_err 'not whole zones of 1048576: the nearest are 3145728 .3 zones. and 4194304 .4.$'
expect_status 0 "$ZNSIMG" resize s.qcow2 3M
expect_status 0 "$ZNSIMG" check s.qcow2

it "refuses, and changes nothing"
"$ZNSIMG" create -q -o zone.size=1M,zone.conventional_zones=2 r.qcow2 8M
qemu-img create -q -f qcow2 -b ours.qcow2 -F qcow2 backed.qcow2
qemu-img create -q -f qcow2 snap.qcow2 1M
qemu-img snapshot -c one snap.qcow2
head -c 1M /dev/zero >raw
cp r.qcow2 open.qcow2
poke open.qcow2 88 8000000000000000
md5sum ./*.qcow2 raw >sums
while IFS='|' read -r arguments sentence; do
	# shellcheck disable=SC2086
	expect_status 1 "$ZNSIMG" resize $arguments
	expect_err "$sentence" || echo "    ($arguments)" >&2
done <<'EOF'
r.qcow2 8500k|the nearest are 8388608 .8 zones. and 9437184 .9.
r.qcow2 2T|more than 1048576 zones
r.qcow2 -1M|Use the --shrink option
--shrink r.qcow2 2M|the first 2 are conventional: the smallest size is 3145728
r.qcow2 +16E|suffixes are
r.qcow2 +15.9E|below 2.63
backed.qcow2 2M|backing file
snap.qcow2 2M|internal snapshots
open.qcow2 9M|start znsd on it once
raw 2M|not a qcow2 image
nowhere 2M|No such file
-f raw r.qcow2 9M|only qcow2
r.qcow2|a file name and a size
9M|a file name and a size
r.qcow2 9M 10M|a file name and a size
--frobnicate r.qcow2 9M|no option "--frobnicate"
EOF
md5sum --quiet -c sums || fail "something changed"

it "refuses an image that another program has open"
if command -v qemu-storage-daemon >/dev/null; then
	qemu-storage-daemon --blockdev driver=file,filename=ours.qcow2,node-name=f \
		--blockdev driver=qcow2,file=f,node-name=q --pidfile pid >/dev/null 2>&1 &
	daemon=$!
	for _ in $(seq 100); do
		[ -s pid ] && break
		sleep 0.05
	done
	expect_status 1 "$ZNSIMG" resize ours.qcow2 2M
	expect_err "lock"
	kill $daemon
	wait $daemon
	expect_status 0 "$ZNSIMG" resize ours.qcow2 2M
fi

it "leaves the old size and no leak when the disk is full"
(
	ulimit -f 400 # blocks of 1 KiB
	trap '' XFSZ
	exec "$ZNSIMG" resize r.qcow2 1T
) 2>err && fail "it was resized"
expect_err 'it has its old size, what the new one needs cannot be written: No space left'
expect_equal "$(size_of r.qcow2)" 8388608
expect_status 0 "$ZNSIMG" check r.qcow2

it "has a help"
expect_status 0 "$ZNSIMG" resize --help
expect_out '^usage: znsimg resize '

finish
