# SPDX-License-Identifier: MIT
# znsimg info: the output of qemu-img, word for word, for what stock QEMU can open; and the zones.
. "$(dirname "$0")/../functions.sh"
need qemu-img qemu-io jq
need_env ZNSIMG
tmpdir

# What qemu-img says of an image; since QEMU 8 it also says something of the file below, which is left out.
qemu_human()
{
	qemu-img info "$@" | sed '/^Child node/,$d'
}

qemu_json()
{
	qemu-img info -f qcow2 --output=json "$1" | jq -S 'del(.children)'
}

# Both programs on $1, both outputs.
same_as_qemu()
{
	expect_equal "$("$ZNSIMG" info "$1")" "$(qemu_human -f qcow2 "$1")" "$2, human"
	expect_equal "$("$ZNSIMG" info --output=json "$1" | jq -S .)" \
		"$(qemu_json "$1")" "$2, json"
}

it "agrees with stock qemu-img on plain images"
for options in cluster_size=512 cluster_size=2M,refcount_bits=1 compat=0.10 \
	lazy_refcounts=on,refcount_bits=64 compression_type=zstd extended_l2=on; do
	qemu-img create -q -f qcow2 -o $options plain.qcow2 123456789
	same_as_qemu plain.qcow2 $options
done
qemu-io -f qcow2 -c 'write 0 5M' plain.qcow2 >/dev/null
same_as_qemu plain.qcow2 "with data"

it "agrees with stock qemu-img on its own plain images, except for the uuid"
"$ZNSIMG" create -q -o cluster_size=4k ours.qcow2 1500M
expect_equal "$("$ZNSIMG" info ours.qcow2 | grep -v '^    uuid: ')" "$(qemu_human ours.qcow2)"

it "agrees with stock qemu-img on a zoned image with the bit cleared, except for zones and uuid"
"$ZNSIMG" create -q -o zone.size=64M zoned.qcow2 768M
cp --sparse=never zoned.qcow2 cleared.qcow2
cp --sparse=never zoned.qcow2 full.qcow2
clear_zoned_bit cleared.qcow2
expect_equal "$("$ZNSIMG" info --output=json full.qcow2 |
	jq -S 'del(.filename, ."format-specific".data.zone, ."format-specific".data.uuid)')" \
	"$(qemu_json cleared.qcow2 | jq 'del(.filename)')"

it "shows the zones with the keys of QEMU's series"
"$ZNSIMG" create -q -o zone.size=64M,zone.capacity=60M,zone.conventional_zones=1 \
	-o zone.max_active_zones=8,zone.max_open_zones=6,zone.max_append_bytes=4096 \
	-o uuid=01234567-89ab-4def-8123-456789abcdef zoned.qcow2 768M
expect_equal "$("$ZNSIMG" info --output=json zoned.qcow2 | jq -Sc '."format-specific".data.zone')" \
	'{"capacity":62914560,"conventional-zones":1,"layout":"v11","max-active-zones":8,"max-append-bytes":4096,"max-open-zones":6,"mode":"host-managed","nr-zones":12,"size":67108864}'
expect_equal "$("$ZNSIMG" info --output=json zoned.qcow2 | jq -r '."format-specific".data.uuid')" \
	01234567-89ab-4def-8123-456789abcdef
expect_status 0 "$ZNSIMG" info zoned.qcow2
expect_out '^        nr zones: 12$'
expect_out '^        max append bytes: 4096$'
expect_out '^    uuid: 01234567-89ab-4def-8123-456789abcdef$'

it "has no max-append-bytes for layout latest"
"$ZNSIMG" create -q -o zone.size=64M,zone.layout=latest latest.qcow2 768M
expect_equal "$("$ZNSIMG" info --output=json latest.qcow2 |
	jq -c '."format-specific".data.zone | [.layout, has("max-append-bytes")]')" '["latest",false]'

it "prints the name of a backing file and does not open it"
qemu-img create -q -f qcow2 base.qcow2 1M
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
rm base.qcow2
expect_status 0 "$ZNSIMG" info top.qcow2
expect_out '^backing file: base.qcow2$'
expect_out '^backing file format: qcow2$'

it "fails with a sentence"
expect_status 1 "$ZNSIMG" info nowhere.qcow2
expect_err "^znsimg: .*nowhere.qcow2.*No such file"
head -c 100000 /dev/urandom >noise
expect_status 1 "$ZNSIMG" info noise
expect_err "^znsimg: .*noise"
expect_status 1 "$ZNSIMG" info
expect_err "needs one file name"
expect_status 1 "$ZNSIMG" info --output=yaml zoned.qcow2
expect_err "'human' or 'json'"
expect_status 1 "$ZNSIMG" info -f raw zoned.qcow2
expect_status 1 "$ZNSIMG" inof zoned.qcow2
expect_err "did you mean 'info'"
expect_status 1 "$ZNSIMG" convert a b
expect_err "unknown verb 'convert'"
expect_status 1 "$ZNSIMG"
expect_err "^usage"
expect_status 0 "$ZNSIMG" --help
expect_out "zones"
expect_status 0 "$ZNSIMG" --version

it "fails when the output cannot be written"
"$ZNSIMG" info zoned.qcow2 >/dev/full 2>err && fail "it did not"

it "changes nothing"
before=$(md5sum <zoned.qcow2)
"$ZNSIMG" info zoned.qcow2 >/dev/null
expect_equal "$(md5sum <zoned.qcow2)" "$before"

it "reads an image that another program has open only with -U"
if command -v qemu-storage-daemon >/dev/null; then
	qemu-storage-daemon --blockdev driver=file,filename=plain.qcow2,node-name=f \
		--blockdev driver=qcow2,file=f,node-name=q \
		--nbd-server addr.type=unix,addr.path=sock \
		--export type=nbd,id=e,node-name=q,writable=on,name=x --pidfile pid >/dev/null 2>&1 &
	daemon=$!
	for _ in $(seq 100); do
		[ -s pid ] && break
		sleep 0.05
	done
	expect_status 1 "$ZNSIMG" info plain.qcow2
	expect_err "lock"
	expect_status 0 "$ZNSIMG" info -U plain.qcow2
	kill $daemon
	wait $daemon
fi

finish
