#!/bin/bash
# SPDX-License-Identifier: MIT
# The command line: --run, --port-file, --ready-fd, --help, --version.
. "$(dirname "$0")/../functions.sh"
need_env ZNSD ZNSIMG ZNSPROBE
here=$(cd "$(dirname "$0")" && pwd)
tmpdir
. "$here/../daemon.sh"

make_image disk.qcow2

it "exports where it is to the command it runs"
expect_status 0 timeout 30 "$ZNSD" --listen 127.0.0.1:0 --nqn "$nqn" --run \
	'echo "[$traddr] [$trsvcid] [$subnqn]"' disk.qcow2
expect_out "^\[127\.0\.0\.1\] \[[1-9][0-9]*\] \[$nqn\]\$"

it "serves the command it runs"
expect_status 0 timeout 30 "$ZNSD" --listen 127.0.0.1:0 --run \
	'"$ZNSPROBE" "$traddr" "$trsvcid" "$subnqn"' disk.qcow2
expect_out 'the same block came back'

it "blocks no signal of the command"
expect_status 0 timeout 30 "$ZNSD" --listen 127.0.0.1:0 --run 'grep SigBlk /proc/self/status' disk.qcow2
expect_out '^SigBlk:.0000000000000000$'

it "ends with the status of the command"
for status in 0 1 7 77; do
	expect_status $status timeout 30 "$ZNSD" --listen 127.0.0.1:0 --run "exit $status" disk.qcow2
done

it "leaves a clean image behind"
expect_status 0 "$ZNSIMG" check disk.qcow2

it "writes its port when it is ready"
start_znsd disk.qcow2
[[ $port =~ ^[0-9]+$ ]] && [ "$port" -gt 0 ] || fail "port is '$port'"
probe flush || fail "not there"
stop_znsd || fail "ended $?"

it "prints how to connect"
grep -q "nvme connect -t tcp -a 127.0.0.1 -s $port -n $nqn" "$tmp/znsd.log" ||
	fail "no nvme connect line: $(cat "$tmp/znsd.log")"
grep -q "nvme discover -t tcp -a 127.0.0.1 -s $port" "$tmp/znsd.log" || fail "no nvme discover line"

it "logs no line an I/O"
lines=$(wc -l <"$tmp/znsd.log")
start_znsd disk.qcow2
probe write 0 8192 1 verify 0 8192 1 reset 0 >/dev/null || fail "probe"
stop_znsd || fail "ended $?"
more=$(($(wc -l <"$tmp/znsd.log") - lines))
[ "$more" -le $((lines + 12)) ] || fail "$more lines"

it "serves on when nobody reads its log any more"
mkfifo log
head -n 1 log >/dev/null &
reader=$!
znsd_log=log start_znsd disk.qcow2
wait "$reader"
probe flush || fail "not there"
probe flush || fail "it went with its log"
stop_znsd || fail "ended $?"

it "does not become ready when it fails"
expect_status 1 timeout 20 bash -c '"$ZNSD" --listen 127.0.0.1:0 --ready-fd 3 nowhere 3>ready.out'
[ ! -s ready.out ] || fail "it said ready"

it "tells its version"
expect_status 0 "$ZNSD" --version
expect_out 'znsd.*[0-9]+\.[0-9]+'

it "explains itself"
expect_status 0 "$ZNSD" --help
for option in listen nqn threads busy-poll cache allow-host port-file ready-fd run log-level help version; do
	expect_out "--$option"
done

finish
