#!/bin/bash
# SPDX-License-Identifier: MIT
# znsbench measures each kind of load, against znsd and against the floor, and what it prints makes sense. tests/bench/run
# measures a row of each kind.
. "$(dirname "$0")/../functions.sh"
need_env ZNSD ZNSIMG ZNSBENCH ZNSFLOOR
need jq
here=$(cd "$(dirname "$0")" && pwd)
tmpdir
. "$here/../daemon.sh"

# bench drive|floor OPTION...: the JSON in $tmp/out. Short rounds; zones so small that they get full.
bench()
{
	local where=(--target-pid "$znsd_pid" 127.0.0.1 "$port" "$nqn")

	[ "$1" = drive ] || where=(--floor --target-pid "$floor_pid" 127.0.0.1 "$floor_port")
	shift
	expect_status 0 timeout 60 "$ZNSBENCH" --json --seconds 0.05 "$@" "${where[@]}"
}

# expect_json EXPRESSION: true of what was printed.
expect_json()
{
	jq -e "$1" out >/dev/null || fail "not so: $1 in $(cat out)"
}

sane='.rounds | all(.ops > 0 and .iops > 0 and .mb_s > 0 and .mean_us > 0 and .p50_us > 0 and .p50_us <= .p99_us and
	.p99_us <= .p999_us and .p999_us <= .max_us and .target_s_mop > 0 and .initiator_s_mop > 0 and .seconds >= 0.05)'

make_image disk.qcow2 size=64M,zone.size=2M,zone.mode=host-managed
start_znsd disk.qcow2
mkfifo floor
"$ZNSFLOOR" >floor &
floor_pid=$!
trap 'kill "$floor_pid" 2>/dev/null; kill_znsd; rm -rf "$tmp"' EXIT
floor_port=$(timeout 20 head -1 floor)
[ -n "$floor_port" ] || fail "znsfloor does not start"

for where in drive floor; do
	for rw in randread read write append mixed fs; do
		it "$rw, $where"
		bench $where --rw $rw --prefill --depth 4
		expect_json ".rw == \"$rw\" and .bs == 4096 and .depth == 4 and .floor == $([ $where = floor ] && echo true || echo false)"
		expect_json "$sane"
		it "$rw, $where: large, by R2T, with digests, on three connections"
		bench $where --rw $rw --prefill --depth 2 --conns 3 --bs 128k --digests --rounds 2
		expect_json '.conns == 3 and .digests and (.rounds | length) == 2'
		expect_json "$sane"
	done
done

for where in drive floor; do
	it "moves a given amount, $where"
	bench $where --rw write --depth 4 --bytes 4m --rounds 2
	expect_json '(.rounds | length) == 2 and (.rounds | all(.ops == 1024))'

	it "flushes beside writes, $where"
	bench $where --rw append --depth 4 --bytes 1m --flush 64k
	expect_json '.median | .ops == 256 and .flushes == 15 and
		.flush_p50_us > 0 and .flush_p50_us <= .flush_p99_us and .flush_p99_us <= .flush_max_us * 1.02'
done

it "has no Flush unless told"
bench drive --rw append
expect_json '.median | .flushes == 0 and .flush_p99_us == null'

it "resets what was not flushed, and goes on"
bench drive --rw append --bs 64k --depth 4 --zones 2 --dirty 16m
expect_json "$sane"
expect_json '.median.reset_max_us > 0'

for conns in 1 2; do
	it "never sleeps, $conns connections"
	bench drive --prefill --depth 4 --conns $conns --poll
	expect_json '.poll and .median.initiator_cpu > 0'
	expect_json "$sane"
done

it "resets full zones, and says how often"
bench drive --rw mixed --prefill --zones 31 --bs 64k --depth 8 --seconds 0.3 # all appends go to one zone
expect_json "$sane"
expect_json '.median.resets > 0'

it "refuses to read what was not written"
"$ZNSPROBE" 127.0.0.1 "$port" "$nqn" reset all || fail "cannot reset"
expect_status 1 "$ZNSBENCH" 127.0.0.1 "$port" "$nqn"
expect_err 'zone 0 is not full; see --prefill'

it "refuses nonsense"
expect_status 2 "$ZNSBENCH" --rw sideways 127.0.0.1 "$port"
expect_status 2 "$ZNSBENCH" --depth 129 127.0.0.1 "$port"
expect_status 2 "$ZNSBENCH" --bytes 0 127.0.0.1 "$port"
expect_status 2 "$ZNSBENCH" --flush 1t 127.0.0.1 "$port"
expect_status 2 "$ZNSBENCH" --dirty 2000000g 127.0.0.1 "$port"
expect_status 2 "$ZNSBENCH" --rounds 4294967297 127.0.0.1 "$port"
expect_status 2 "$ZNSBENCH" 127.0.0.1
expect_status 1 "$ZNSBENCH" --bs 1000 127.0.0.1 "$port" "$nqn"
expect_status 1 "$ZNSBENCH" --rw write --depth 64 127.0.0.1 "$port" "$nqn"
expect_err 'too few zones'

it "leaves an image that is sound"
stop_znsd || fail "znsd ended $?"
expect_status 0 "$ZNSIMG" check disk.qcow2

it "fails when nobody is there"
expect_status 1 "$ZNSBENCH" 127.0.0.1 "$port" "$nqn"

# ---- tests/bench/run ----

if [ -n "${SANITIZE:-}" ] || ! command -v fio >/dev/null || ! command -v qemu-nbd >/dev/null || [ "$(nproc)" = 1 ]; then
	echo "tests/bench/run: not tested: it needs fio, qemu-nbd, two processors, and no sanitizer"
	finish
fi
build=$(dirname "$ZNSD")

run() # STATUS OPTION...
{
	local want=$1

	shift
	expect_status "$want" timeout 200 "$here/run" --brief --build "$build" "$@"
}

it "explains its options"
run 2 --sideways
expect_err '^tests/bench/run .*: how fast'
expect_err '--cores'

it "says when no row is meant"
run 1 --only 'sideways'
expect_err "no row matches 'sideways'"

if [ "$(id -u)" = 0 ]; then
	it "says what --rt needs"
	expect_status 1 setpriv --reuid 65534 --regid 65534 --clear-groups bash -c "ulimit -r 0 && bash $here/run --rt"
	expect_err '--rt needs root, or real-time priority'
fi

it "measures a row of each kind"
disk=$(df --output=fstype "$build" | tail -1)
rows=("4k randread, depth 32" "4k randread, depth 32, 2 connections" "4k randread, depth 32, 2 connections, 2 loops"
	"128k write, depth 8, first time, 8 zones" "4k append, depth 1, a flush every 4k"
	"128k append, depth 32, 4 zones, cache none, on $disk")
run 0 --only "^($(printf '%s|' "${rows[@]}"))\$"
for row in "${rows[@]}"; do
	expect_out "^\| $row +\|"
done
expect_out '^[0-9]+ bars, [0-9]+ not met'
expect_equal "$(jq -r .kind "$build/bench/brief.json" | sort -u | xargs)" "direct file floor nbd want znsd"

it "names the rows below their bar, and those alone"
jq -c 'if .kind == "want" then {row, kind, load, loops: 1} +
	(if .row == "4k randread, depth 32" then {floor: 1000, nbd: 1e-6} else {} end) else . end' "$build/bench/brief.json" >below.json
jq -rs -f "$here/table.jq" below.json | tail -2 >out
expect_out '^2 bars, 1 not met:'
expect_out '^. 4k randread, depth 32: rate in the floor.s at least 1000, is [0-9.]+'

it "measures loops"
run 0 --cores
expect_out '^Left out: [0-9]+ loops and more'
expect_out '^\| 4k append, depth 32, 2 connections, 8 zones, polling +\|'
finish
