# SPDX-License-Identifier: MIT
# znsimg check: the result of stock qemu-img where that can check the image, and what is particular to zones.
. "$(dirname "$0")/../functions.sh"
need qemu-img qemu-io jq
need_env ZNSIMG
tmpdir

# expect_same IMAGE WHAT: exit status, text and JSON are those of stock qemu-img.
expect_same()
{
	local ours theirs

	"$ZNSIMG" check "$1" >ours 2>ours.err
	ours=$?
	qemu-img check -f qcow2 "$1" >theirs 2>theirs.err
	theirs=$?
	expect_equal $ours $theirs "$2: status; $(head -2 ours.err theirs.err)"
	expect_equal "$(cat ours)" "$(cat theirs)" "$2: text"
	expect_equal "$("$ZNSIMG" check --output=json "$1" 2>/dev/null | jq -S .)" \
		"$(qemu-img check --output=json "$1" 2>/dev/null | jq -S .)" "$2: json"
}

# fill IMAGE: some scattered data.
fill()
{
	qemu-io -f qcow2 -c 'write -P 1 0 300k' -c 'write -P 2 4M 1M' -c 'write -P 3 1M 64k' \
		-c 'write -z 2M 128k' -c 'write -P 4 600k 1k' "$1" >/dev/null
}

it "agrees with stock qemu-img on sound images"
for options in cluster_size=512,refcount_bits=64 cluster_size=1k,refcount_bits=1 \
	cluster_size=4k,refcount_bits=2 refcount_bits=4 refcount_bits=8 refcount_bits=32 \
	cluster_size=2M compat=0.10 extended_l2=on data_file=data.raw lazy_refcounts=on \
	preallocation=metadata; do
	rm -f a.qcow2 data.raw
	qemu-img create -q -f qcow2 -o $options a.qcow2 32M
	expect_same a.qcow2 "$options, empty"
	fill a.qcow2
	expect_same a.qcow2 "$options"
done

it "agrees with stock qemu-img on compressed clusters, snapshots, bitmaps, encryption"
head -c 3M /dev/urandom >noise
seq 400000 >>noise
for options in compression_type=zlib compression_type=zstd cluster_size=4k cluster_size=2M; do
	qemu-img convert -c -f raw -O qcow2 -o $options noise c.qcow2
	expect_same c.qcow2 "compressed, $options"
done
qemu-img create -q -f qcow2 snap.qcow2 32M
fill snap.qcow2
qemu-img snapshot -c one snap.qcow2
qemu-io -f qcow2 -c 'write -P 9 100k 700k' snap.qcow2 >/dev/null
qemu-img snapshot -c two snap.qcow2
qemu-io -f qcow2 -c 'write -P 9 4M 3M' snap.qcow2 >/dev/null
expect_same snap.qcow2 snapshots
qemu-img create -q -f qcow2 bitmap.qcow2 32M
qemu-img bitmap --add bitmap.qcow2 b0
fill bitmap.qcow2
qemu-img bitmap --add -g 512 bitmap.qcow2 b1
expect_same bitmap.qcow2 bitmaps

it "agrees with stock qemu-img on damaged images"
qemu-img create -q -f qcow2 base.qcow2 32M
fill base.qcow2
truncate -s +1M base.qcow2 # clusters that nobody uses
l1=$((0x$(peek base.qcow2 40 8)))
l2=$((0x$(peek base.qcow2 $l1 8) & 0xfffffffffffe00))
data=$((0x$(peek base.qcow2 $l2 8) & 0xfffffffffffe00))
refblock=$((0x$(peek base.qcow2 "0x$(peek base.qcow2 48 8)" 8)))
end=$(($(stat -c %s base.qcow2) - 1048576)) # of what is used
# what | status | offset | bytes
while IFS='|' read -r what status offset bytes; do
	cp base.qcow2 bad.qcow2
	poke bad.qcow2 $((offset)) "$bytes"
	expect_status "$status" "$ZNSIMG" check bad.qcow2 || echo "    ($what)" >&2
	qemu-img check -f qcow2 bad.qcow2 >/dev/null 2>&1
	expect_equal $? "$status" "$what: what stock qemu-img says"
done <<EOF
a leaked cluster|3|refblock + 2 * (end / 65536 + 5)|0001
a refcount too high|3|refblock + 2 * 0|0002
a data cluster without a refcount|2|refblock + 2 * (data / 65536)|0000
a refcount table elsewhere|2|0x10000|$(be64 $((end + 0x1000000)))
an L2 entry beyond the file|2|l2|$(be64 $((1 << 63 | (end + 0x1000000))))
an L2 entry that is misaligned|2|l2|$(be64 $((1 << 63 | (data + 512))))
an L2 entry with reserved bits|2|l2|$(be64 $((1 << 63 | data | 2)))
an L2 entry without COPIED|2|l2|$(be64 $data)
two L2 entries with one cluster|2|l2 + 8|$(be64 $((1 << 63 | data)))
an L2 entry that maps the header|2|l2 + 8|$(be64 $((1 << 63 | l1)))
an L1 entry with reserved bits|2|l1|$(be64 $((1 << 63 | l2 | 2)))
an L1 entry without COPIED|2|l1|$(be64 $l2)
an L1 entry that is misaligned|2|l1|$(be64 $((1 << 63 | (l2 + 512))))
an L1 entry beyond the file|2|l1|$(be64 $((1 << 63 | (end + 0x1000000))))
EOF

it "finds leaks beyond the end of the file, where stock qemu-img does not look"
cp base.qcow2 bad.qcow2
poke bad.qcow2 $((refblock + 2 * (end / 65536 + 100))) 0001
expect_status 3 "$ZNSIMG" check bad.qcow2

it "counts leaks and corruptions; with both the exit status is that of corruption"
cp base.qcow2 both.qcow2
poke both.qcow2 $((refblock + 2 * (end / 65536 + 5))) 00010001
poke both.qcow2 $((refblock + 2 * (data / 65536))) 0000
expect_status 2 "$ZNSIMG" check --output=json both.qcow2
expect_equal "$(jq -c '[.leaks, .corruptions, ."check-errors"]' out)" \
	"$(qemu-img check --output=json both.qcow2 2>/dev/null | jq -c '[.leaks, .corruptions, ."check-errors"]')"
expect_err '^Leaked cluster [0-9]+ refcount=1 reference=0$'
expect_err '^ERROR cluster [0-9]+ refcount=0 reference=1$'

it "finds damaged write pointers"
"$ZNSIMG" create -q -o zone.size=1M,zone.capacity=768k,zone.conventional_zones=2 zoned.qcow2 32M
expect_status 0 "$ZNSIMG" check zoned.qcow2
table=$((0x30000))
while IFS='|' read -r what status zone entry; do
	cp zoned.qcow2 bad.qcow2
	poke bad.qcow2 $((table + 8 * zone)) "$(be64 $((entry)))"
	expect_status "$status" "$ZNSIMG" check bad.qcow2 || echo "    ($what)" >&2
	[ "$status" = 0 ] || expect_err "zone $zone"
done <<'EOF'
in the middle|0|5|(5 << 20) + 512
at the capacity|0|5|(5 << 20) + (768 << 10)
at the zone's end, as v11 finishes|0|5|6 << 20
in an earlier zone|2|5|4 << 20
in a later zone|2|5|(6 << 20) + 512
no whole sector|2|5|(5 << 20) + 100
a conventional zone without marker|2|1|1 << 20
a conventional zone that moved|2|1|1 << 59 | (1 << 20) + 512
a sequential zone with a marker|2|5|1 << 59 | (5 << 20)
a sequential zone with the other marker|2|5|1 << 63 | (5 << 20)
EOF

it "finds data over the write-pointer table"
cp zoned.qcow2 bad.qcow2
clear_zoned_bit bad.qcow2
qemu-io -f qcow2 -c 'write 8M 64k' bad.qcow2 >/dev/null
poke bad.qcow2 79 20
expect_status 0 "$ZNSIMG" check bad.qcow2
l2=$((0x$(peek bad.qcow2 0x40000 8) & 0xfffffffffffe00))
poke bad.qcow2 $((l2 + 8 * 128)) "$(be64 $((1 << 63 | table)))"
expect_status 2 "$ZNSIMG" check bad.qcow2
expect_err 'ERROR cluster 3 refcount=1 reference=2'

it "fails fast on a header with huge sizes"
limit=500000
( ulimit -v $limit; "$ZNSIMG" --version >/dev/null 2>&1 ) || limit=unlimited # ASan wants its shadow
while IFS='|' read -r offset bytes; do
	cp zoned.qcow2 bomb.qcow2
	poke bomb.qcow2 "$offset" "$bytes"
	( ulimit -v $limit; timeout 10 "$ZNSIMG" check bomb.qcow2 >out 2>err )
	status=$?
	case $status in
	1 | 2 | 63) ;;
	*) fail "ends $status with $bytes at $offset" ;;
	esac
done <<'EOF'
24|1000000000000000
36|7fffffff
36|00400000
40|7ffffffffff00000
48|7ffffffffff00000
56|7fffffff
60|0000ffff
60|7fffffff
20|0000001f
96|000000ff
EOF
[ "$(stat -c %T -f .)" = tmpfs ] || {
	cp zoned.qcow2 long.qcow2
	truncate -s 1T long.qcow2
	timeout 20 "$ZNSIMG" check long.qcow2 >/dev/null 2>&1
	expect_equal $? 0 "a sparse file of 1 TiB"
}

it "obeys its options"
expect_status 0 "$ZNSIMG" check -q zoned.qcow2
expect_equal "$(cat out err)" "" "-q"
expect_status 2 "$ZNSIMG" check -q bad.qcow2
expect_equal "$(cat out err)" "" "-q"
expect_status 0 "$ZNSIMG" check -f qcow2 -U zoned.qcow2
expect_out '^No errors were found on the image.$'
expect_status 63 "$ZNSIMG" check -f raw zoned.qcow2
expect_status 1 "$ZNSIMG" check -r some bad.qcow2
expect_err "-r must be 'leaks' or 'all'"
expect_status 1 "$ZNSIMG" check -U -r all bad.qcow2
expect_err "-r and -U"
expect_status 1 "$ZNSIMG" check nowhere
expect_err "No such file"
expect_status 1 "$ZNSIMG" check
expect_status 1 "$ZNSIMG" check --frobnicate zoned.qcow2
expect_err '^znsimg: there is no option "--frobnicate"'

it "changes nothing"
before=$(md5sum <bad.qcow2)
"$ZNSIMG" check bad.qcow2 >/dev/null 2>&1
expect_equal "$(md5sum <bad.qcow2)" "$before"

finish
