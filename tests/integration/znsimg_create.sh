# SPDX-License-Identifier: MIT
# znsimg create: the bytes that it writes, what stock QEMU reports on them, what it refuses.
. "$(dirname "$0")/../functions.sh"
need qemu-img jq
need_env ZNSIMG
tmpdir

seed_options="-o size=768M -o zone.size=64M -o zone.capacity=64M -o zone.conventional_zones=0
	-o zone.max_append_bytes=4096 -o zone.max_open_zones=6 -o zone.max_active_zones=8
	-o zone.mode=host-managed"

it "makes an image with all zone options"
# shellcheck disable=SC2086
expect_status 0 "$ZNSIMG" create -f qcow2 zbc.qcow2 $seed_options
expect_out "^Formatting 'zbc.qcow2', fmt=qcow2 cluster_size=65536 .*size=805306368 .*zone.mode=host-managed"
expect_equal "$(wc -l <out)" 1 "lines on stdout"
expect_equal "$(wc -c <err)" 0 "bytes on stderr"

it "accepts the same options in one -o"
expect_status 0 "$ZNSIMG" create -q -o "$(tr -s ' \n\t' ' ' <<<"$seed_options" |
	sed 's/^ *-o //; s/ -o /,/g; s/ *$//'),uuid=01234567-89ab-4def-8123-456789abcdef" one.qcow2
expect_equal "$(wc -c <out)" 0 "bytes on stdout with -q"

it "writes the zoned extension byte for byte"
# 112 header, then the feature names (8 + 432), then the zoned extension
want=007a6264"00000030"		# magic, length 48
want+=01000000"0000000c"	# host-managed, 12 zones
want+=0000000004000000		# zone size
want+=0000000004000000		# capacity
want+=00000000"00000008"	# conventional, max active
want+=00000006"00001000"	# max open, max append
want+=0000000000030000		# write pointers at cluster 3
expect_equal "$(peek zbc.qcow2 112 8)" 6803f857000001b0 "feature names"
expect_equal "$(peek zbc.qcow2 552 56)" $want "zoned extension"
expect_equal "$(peek one.qcow2 608 40)" 7a6e736400000018"0123456789ab4def8123456789abcdef"00000000000000000000000000000000 "znsd extension"

it "uses the same layout of the file as QEMU"
expect_equal "$(peek zbc.qcow2 0 8)" 514649fb00000003 "magic, version"
expect_equal "$(peek zbc.qcow2 36 28)" 0000000200000000000400000000000000010000"00000001"00000000 \
	"L1 size and offset, refcount table, snapshots"
expect_equal "$(peek zbc.qcow2 72 8)" 0000000000000020 "incompatible features"
expect_equal "$(peek zbc.qcow2 0x10000 16)" 00000000000200000000000000000000 "refcount table"
expect_equal "$(peek zbc.qcow2 0x20000 12)" 000100010001000100010000 "refcounts"
expect_equal "$(peek zbc.qcow2 0x30000 24)" 000000000000000000000000040000000000000008000000 "pointers"
expect_equal "$(stat -c %s zbc.qcow2)" 327680 "length"

it "marks conventional zones, bit 59 in v11 and 63 in latest"
expect_status 0 "$ZNSIMG" create -q -o zone.size=64M,zone.conventional_zones=2 conv.qcow2 768M
expect_equal "$(peek conv.qcow2 0x30000 24)" 080000000000000008000000040000000000000008000000
expect_status 0 "$ZNSIMG" create -q -o zone.size=64M,zone.conventional_zones=2,zone.layout=latest \
	conv.qcow2 768M
expect_equal "$(peek conv.qcow2 0x30000 24)" 800000000000000080000000040000000000000008000000
expect_equal "$(peek conv.qcow2 552 8)" 007a62640000002c "length of L44"

it "makes sparse files"
expect_status 0 "$ZNSIMG" create -q -o cluster_size=2M,zone.size=1G sparse.qcow2 1T
[ "$(du -k sparse.qcow2 | cut -f1)" -lt 5000 ] || fail "$(du -k sparse.qcow2) KiB on disk"

# The clusters that stock qemu-img must find leaked in a copy of $1 with the zoned bit cleared.
wp_clusters()
{
	local ext=112 offset zones bytes=$2

	[ "$bytes" -le 4096 ] || ext=552
	zones=$((0x$(peek "$1" $((ext + 12)) 4)))
	if [ "$(peek "$1" $((ext + 7)) 1)" = 2c ]; then
		offset=$((0x$(peek "$1" $((ext + 32)) 8)))
	else
		offset=$((0x$(peek "$1" $((ext + 48)) 8)))
	fi
	seq $((offset / bytes)) $(((offset + zones * 8 - 1) / bytes))
}

it "makes images in which stock qemu-img finds only the write-pointer table leaked"
# All pairs: each layout with every cluster size and every width.
layouts=(v11 latest)
for shift in 9 10 11 12 13 14 15 16 17 18 19 20 21; do
	cluster=$((1 << shift))
	zone=$((cluster > 65536 ? cluster : 65536))
	for order in 0 1 2 3 4 5 6; do
		bits=$((1 << order))
		layout=${layouts[$(((shift + order) % 2))]}
		name="$cluster/$bits/$layout"
		"$ZNSIMG" create -q -o "cluster_size=$cluster,refcount_bits=$bits" \
			-o "zone.size=$zone,zone.layout=$layout,zone.conventional_zones=3" \
			x.qcow2 256M || fail "$name: not made"
		"$ZNSIMG" check -q x.qcow2 || fail "$name: our check ends $?"
		want=$(wp_clusters x.qcow2 $cluster)
		clear_zoned_bit x.qcow2
		qemu-img check -f qcow2 x.qcow2 >out 2>err
		[ $? = 3 ] || fail "$name: qemu-img check: $(cat out err)"
		got=$(sed -n 's/^Leaked cluster \([0-9]*\) refcount=1 reference=0$/\1/p' err)
		expect_equal "$got" "$want" "$name: leaked clusters"
	done
done

it "makes plain images that stock qemu-img finds sound"
for options in cluster_size=512 cluster_size=64k,compression_type=zstd lazy_refcounts=on \
	cluster_size=2M,refcount_bits=64; do
	expect_status 0 "$ZNSIMG" create -q -o $options plain.qcow2 1G
	expect_status 0 qemu-img check -f qcow2 plain.qcow2
done
expect_status 0 "$ZNSIMG" create -q plain.qcow2 0
expect_status 0 qemu-img check -f qcow2 plain.qcow2

it "lets stock qemu-io write into a cleared copy"
if command -v qemu-io >/dev/null; then
	expect_status 0 "$ZNSIMG" create -q -o cluster_size=512,refcount_bits=64,zone.size=1M w.qcow2 64M
	clear_zoned_bit w.qcow2
	expect_status 0 qemu-io -f qcow2 -c 'write -P 7 1M 9M' -c 'read -P 7 1M 9M' w.qcow2
	expect_status 3 qemu-img check -f qcow2 w.qcow2
	expect_out "^1 leaked clusters"
fi

it "rounds the size up to sectors"
expect_status 0 "$ZNSIMG" create round.qcow2 1000
expect_out " size=1024 "

it "lowers limits with a warning"
expect_status 0 "$ZNSIMG" create -o zone.size=64M,zone.max_active_zones=99,zone.max_open_zones=50 c.qcow2 256M
expect_err "^znsimg: warning: zone.max_active_zones 99 .* 4 is used"
expect_err "^znsimg: warning: zone.max_open_zones 50 .* 4 is used"
expect_out "zone.max_active_zones=4 zone.max_open_zones=4"
expect_status 0 "$ZNSIMG" create -o zone.size=64M,zone.max_active_zones=2,zone.max_open_zones=3 c.qcow2 256M
expect_out "zone.max_active_zones=2 zone.max_open_zones=2"

it "defaults max_open_zones to max_active_zones"
expect_status 0 "$ZNSIMG" create -o zone.size=64M,zone.max_active_zones=3 c.qcow2 256M
expect_out "zone.max_active_zones=3 zone.max_open_zones=3"

it "warns of a short last zone"
expect_status 0 "$ZNSIMG" create -o zone.size=64M s.qcow2 100M
expect_err "warning: the last zone is shorter"

it "lists the options"
expect_status 0 "$ZNSIMG" create -o help
expect_out "^  zone.max_append_bytes=<size> +- "
expect_status 0 "$ZNSIMG" create -f qcow2 -o size=3M,help whatever
[ ! -e whatever ] || fail "-o help made a file"

it "accepts options in any place, doubled commas as commas, and the last of two values"
expect_status 0 "$ZNSIMG" create any.qcow2 -o cluster_size=4k -q 64M -o cluster_size=8k -f qcow2
expect_equal "$("$ZNSIMG" info --output=json any.qcow2 | jq '."cluster-size"')" 8192
expect_status 1 "$ZNSIMG" create -o compat=1.1,,x c2.qcow2 1M
expect_err "'1.1,x'"

it "replaces a file with any content"
head -c 700000 /dev/urandom >old.qcow2
expect_status 0 "$ZNSIMG" create -q -o zone.size=64M old.qcow2 256M
expect_status 0 "$ZNSIMG" check old.qcow2
expect_equal "$(stat -c %s old.qcow2)" 327680 "length"

it "refuses"
# options and arguments | what the sentence says
while IFS='|' read -r arguments sentence; do
	[ -n "$arguments" ] || continue
	rm -f no.qcow2
	# shellcheck disable=SC2086
	expect_status 1 "$ZNSIMG" create $arguments
	expect_err "^znsimg: .*$sentence" || echo "    ($arguments)" >&2
	[ ! -e no.qcow2 ] || fail "$arguments left a file behind"
done <<'EOF'
no.qcow2|needs a size
-o size=1M no.qcow2 1M|only once
no.qcow2 1M 2M|too many arguments
|
no.qcow2 12Q|invalid image size '12Q'
no.qcow2 -5|no option "-5"
no.qcow2 1.5|invalid image size
no.qcow2 17E|invalid image size
no.qcow2 8E|too large
-f raw no.qcow2 1M|unknown format 'raw'
-b base.qcow2 no.qcow2 1M|backing file
-o sise=1M no.qcow2|unknown option 'sise', did you mean 'size'
-o capacity=1M no.qcow2 1M|did you mean 'zone.capacity'
-o zone.max_open=1 no.qcow2 1M|unknown option 'zone.max_open'
-o frobnicate=1M no.qcow2 1M|unknown option 'frobnicate'; '-o help'
-o preallocation=full no.qcow2 1M|not supported by znsimg
-o size no.qcow2|needs a value
-o compat=0.10 no.qcow2 1M|'0.10', it must be '1.1' or 'v3'
-o cluster_size=3000 no.qcow2 1M|cluster_size is 3000, it must be a power of two
-o cluster_size=256 no.qcow2 1M|from 512 to 2M
-o cluster_size=4M no.qcow2 1M|from 512 to 2M
-o cluster_size=0 no.qcow2 1M|must not be 0
-o refcount_bits=3 no.qcow2 1M|from 1 to 64
-o refcount_bits=128 no.qcow2 1M|from 1 to 64
-o compression_type=lzma no.qcow2 1M|'zlib' or 'zstd'
-o lazy_refcounts=maybe no.qcow2 1M|'on' or 'off'
-o uuid=1234 no.qcow2 1M|a UUID such as
-o cluster_size=512 no.qcow2 1T|try a larger cluster_size
-o zone.mode=drive-managed no.qcow2 1G|'host-managed' or 'none'
-o zone.mode=none,zone.size=64M no.qcow2 1G|makes no sense
-o zone.mode=host-managed no.qcow2 0|a disk of 0 bytes
-o zone.size=100M no.qcow2 1G|zone.size is 104857600, it must be a power of two
-o zone.size=0 no.qcow2 1G|'zone.size' must not be 0
-o zone.size=32k no.qcow2 1G|multiple of the cluster size 65536
-o zone.size=64k no.qcow2 128G|2097152 zones, at most 1048576
-o zone.size=64M,zone.capacity=65M no.qcow2 1G|not be above zone.size
-o zone.size=64M,zone.capacity=1000 no.qcow2 1G|multiple of 512
-o zone.size=64M,zone.conventional_zones=16 no.qcow2 1G|less than the number of zones 16
-o zone.size=64M,zone.conventional_zones=-1 no.qcow2 1G|a number below
-o zone.size=64M,zone.max_append_bytes=1000 no.qcow2 1G|multiple of 512
-o zone.size=64M,zone.max_append_bytes=0 no.qcow2 1G|must not be 0
-o zone.size=64k,zone.max_append_bytes=64k no.qcow2 1G|stay below zone.capacity
-o zone.size=64M,zone.max_append_bytes=4k,zone.layout=latest no.qcow2 1G|has no room for zone.max_append_bytes
-o zone.size=64M,zone.layout=v8 no.qcow2 1G|'v11' or 'latest'
-o cluster_size=2M,zone.size=1P no.qcow2 1E|too large for a zoned image
no/such/dir/no.qcow2 1M|could not open 'no/such/dir/no.qcow2': No such file
EOF

it "refuses to replace a directory"
mkdir dir
expect_status 1 "$ZNSIMG" create dir 1M
expect_err "Is a directory"

it "refuses to replace an image that another program has open"
if command -v qemu-storage-daemon >/dev/null; then
	qemu-img create -q -f qcow2 busy.qcow2 1M
	before=$(md5sum <busy.qcow2)
	qemu-storage-daemon --blockdev driver=file,filename=busy.qcow2,node-name=f \
		--blockdev driver=qcow2,file=f,node-name=q --pidfile pid >/dev/null 2>&1 &
	daemon=$!
	for _ in $(seq 100); do
		[ -s pid ] && break
		sleep 0.05
	done
	expect_status 1 "$ZNSIMG" create -q busy.qcow2 2M
	expect_err "lock"
	expect_equal "$(md5sum <busy.qcow2)" "$before" "the image changed"
	kill $daemon
	wait $daemon
	expect_status 0 "$ZNSIMG" create -q busy.qcow2 2M
fi

it "leaves nothing behind when the disk is full"
(
	ulimit -f 64 # blocks of 1 KiB
	trap '' XFSZ
	exec "$ZNSIMG" create -q -o zone.size=64k full.qcow2 16G
) 2>err && fail "it was made"
[ ! -e full.qcow2 ] || fail "a file of $(stat -c %s full.qcow2) bytes was left"

finish
