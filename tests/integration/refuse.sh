#!/bin/bash
# SPDX-License-Identifier: MIT
# What znsd will not serve: one clear sentence on stderr, exit 1 (2 for the command line), and the
# image as it was.
. "$(dirname "$0")/../functions.sh"
need_env ZNSD ZNSIMG ZNSPROBE
here=$(cd "$(dirname "$0")" && pwd)
tmpdir
. "$here/../daemon.sh"

make_image good.qcow2

# refused STATUS PATTERN ARG...: znsd ARG... ends so and says so.
refused()
{
	local status=$1 pattern=$2 lines

	shift 2
	expect_status "$status" timeout 20 "$ZNSD" --listen 127.0.0.1:0 "$@" || return 1
	expect_err "$pattern"
	# Not counting what is said of other images before; QEMU's words for a lock are two lines.
	lines=$(grep -vcE ' zones of |warning: ' "$tmp/err")
	[ "$lines" -ge 1 ] && [ "$lines" -le 2 ] || fail "$lines lines on stderr, not a sentence"
}

# unchanged FILE: its bytes are those that `remember FILE` saw.
remember()
{
	sha256sum "$1" >"$tmp/sum"
}

unchanged()
{
	sha256sum -c --quiet "$tmp/sum" >/dev/null 2>&1 || fail "$1 was changed"
}

it "refuses a damaged image"
cp good.qcow2 bad.qcow2
poke bad.qcow2 40 ffffffffffffffff	# the L1 table is nowhere
remember bad.qcow2
refused 1 'bad\.qcow2' bad.qcow2
unchanged bad.qcow2

it "refuses an image whose header is cut"
head -c 90 good.qcow2 >cut.qcow2
remember cut.qcow2
refused 1 'cut\.qcow2' cut.qcow2
unchanged cut.qcow2

it "refuses a zone size that is no power of two"
# The zoned extension of v11: magic 007a6264, its length, then zone_size at 8 of its data.
cp good.qcow2 odd.qcow2
ext=$(head -c 4096 odd.qcow2 | od -An -v -tx1 | tr -d ' \n' | grep -bo 007a626400000030 | head -1 |
	cut -d: -f1)
if [ -n "$ext" ]; then
	poke odd.qcow2 $((ext / 2 + 8 + 8)) "$(be64 $((48 << 20)))"
	poke odd.qcow2 $((ext / 2 + 8 + 4)) 00000010
	remember odd.qcow2
	refused 1 'power of two|power of 2' odd.qcow2
	unchanged odd.qcow2
else
	fail "the zoned extension is not where it should be"
fi

it "refuses to create a zone size that is no power of two"
expect_status 1 "$ZNSIMG" create -f qcow2 odd2.qcow2 \
	-o size=768M,zone.size=48M,zone.mode=host-managed
expect_err 'power of two|power of 2'
[ ! -e odd2.qcow2 ] || fail "there is a file all the same"

it "refuses an image that another znsd serves"
start_znsd good.qcow2
remember good.qcow2
refused 1 'good\.qcow2.*(lock|use)|(lock|use).*good\.qcow2' good.qcow2
unchanged good.qcow2

it "keeps znsimg from checking or replacing what it serves"
"$ZNSIMG" check good.qcow2 >/dev/null 2>"$tmp/err" && fail "check opened a locked image"
"$ZNSIMG" create -f qcow2 good.qcow2 -o size=1G >/dev/null 2>&1 && fail "create replaced it"
unchanged good.qcow2

it "refuses a port in use"
make_image other.qcow2
remember other.qcow2
expect_status 1 timeout 20 "$ZNSD" --listen "127.0.0.1:$port" other.qcow2
expect_err "127\.0\.0\.1.*$port|$port.*in use"
unchanged other.qcow2
probe flush || fail "the first znsd is not well"
stop_znsd || fail "znsd ended $?"

if command -v qemu-io >/dev/null; then
	it "refuses an image that QEMU has open"
	cp good.qcow2 plainbit.qcow2
	clear_zoned_bit plainbit.qcow2
	mkfifo commands
	qemu-io -f qcow2 plainbit.qcow2 <commands >qemu.out 2>&1 &
	qemu=$!
	exec 8>commands
	echo "read 0 4k" >&8
	for _ in $(seq 100); do
		grep -q 'read 4096' qemu.out && break
		sleep 0.1
	done
	# The bit is put back behind QEMU's back; its lock is what counts.
	poke plainbit.qcow2 79 "$(printf '%02x' $((0x$(peek plainbit.qcow2 79 1) | 0x20)))"
	refused 1 'lock|use' plainbit.qcow2
	echo quit >&8
	exec 8>&-
	wait "$qemu"
fi

it "refuses an unknown option"
remember good.qcow2
refused 2 '--no-such-option|no-such-option' --no-such-option good.qcow2
refused 2 'colour' good.qcow2,colour=red
refused 2 'lba' good.qcow2,lba=513
refused 2 'cache' --cache sometimes good.qcow2
refused 2 'threads' --threads 0 good.qcow2
unchanged good.qcow2

it "refuses a port file that it cannot write"
refused 1 'no/such/dir/port: No such file' --port-file no/such/dir/port good.qcow2

it "refuses a name that is no NQN"
refused 1 'no NQN' --nqn nqm.2014-08.org.example good.qcow2

it "refuses a command line without an image"
refused 2 '.'

it "refuses a file that is not there"
refused 1 'nowhere\.qcow2.*No such file' nowhere.qcow2
[ ! -e nowhere.qcow2 ] || fail "it made one"

it "refuses a directory"
mkdir folder
refused 1 'folder' folder

it "refuses an empty file"
: >empty.qcow2
refused 1 'empty\.qcow2' empty.qcow2
[ ! -s empty.qcow2 ] || fail "the file was changed"

it "refuses a raw file"
head -c 1048576 /dev/zero >raw.img
remember raw.img
refused 1 'raw\.img' raw.img
unchanged raw.img

it "refuses a qcow2 image without zones"
"$ZNSIMG" create -f qcow2 flat.qcow2 -o size=64M >/dev/null
remember flat.qcow2
refused 1 'flat\.qcow2.*zone|zone.*flat\.qcow2' flat.qcow2
unchanged flat.qcow2

it "refuses the same image twice"
refused 1 'good\.qcow2' good.qcow2 good.qcow2

it "refuses the same nsid twice"
refused 1 'nsid|namespace' good.qcow2,nsid=3 other.qcow2,nsid=3

it "serves the good image after all that"
start_znsd good.qcow2
"$ZNSPROBE" 127.0.0.1 "$port" >/dev/null || fail "the probe ended $?"
stop_znsd || fail "znsd ended $?"
expect_status 0 "$ZNSIMG" check good.qcow2

finish
