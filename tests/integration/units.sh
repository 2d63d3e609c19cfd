#!/bin/bash
# SPDX-License-Identifier: MIT
# The units of systemd: sound, shut away, and with every system call that a served drive makes.
. "$(dirname "$0")/../functions.sh"
need systemd-analyze
need_env ZNSD ZNSIMG ZNSPROBE BUILD_DIR
tmpdir
units=(znsd.service znsd@.service)

# The program of this build in place of the installed one.
for unit in "${units[@]}"; do
	sed "s,=[^ ]*/znsd ,=$ZNSD ," "$BUILD_DIR/packaging/systemd/$unit" >"$unit"
	grep -q "^ExecStart=$ZNSD " "$unit" || fail "$unit starts no znsd"
done

it "is understood by systemd, all of it"
for unit in "${units[@]}"; do
	expect_status 0 systemd-analyze verify --man=no "$tmp/$unit"
	expect_equal "$(cat out err)" "" "$unit"
done

it "notices a unit that is not"
sed 's/^Type=notify/Typo=notify/' znsd.service >bad.service
systemd-analyze verify --man=no "$tmp/bad.service" 2>&1 | grep -q Typo || fail "a typo was not noticed"

it "is exposed by no more than 1.5 of 10"
for unit in "${units[@]}"; do
	expect_status 0 systemd-analyze security --offline=true --threshold=15 --no-pager "$tmp/$unit"
	expect_out 'Overall exposure level for .*: [01]\.[0-9] OK'
done
expect_status 1 systemd-analyze security --offline=true --threshold=5 --no-pager "$tmp/znsd.service"

# members SET: the system calls of a set of systemd, without those of the sets within it twice.
members()
{
	local word

	for word in $(systemd-analyze syscall-filter "$1" | sed 1d | sed 's/#.*//'); do
		if [[ $word == @* ]]; then
			members "$word"
		else
			echo "$word"
		fi
	done | sort -u
}

it "admits every system call of a drive in use"
if ! command -v strace >/dev/null; then
	echo "not here: strace"
elif [ -n "${SANITIZE:-}" ]; then
	echo "not with sanitizers, which make calls of their own"
else
	sed -n 's/^SystemCallFilter=//p' znsd.service >filter
	expect_equal "$(cat filter)" "$(printf '@system-service mincore\n~@privileged @resources')"
	{ members @system-service && echo mincore; } | sort -u >allowed
	for set in @privileged @resources; do
		members $set
	done | sort -u >denied
	comm -23 allowed denied >admitted
	[ "$(wc -l <admitted)" -ge 200 ] || fail "the sets have only $(wc -l <admitted) calls"
	mkdir shadow
	memory=$(mktemp -d /dev/shm/znsd-units.XXXXXX) && trap 'rm -rf "$tmp" "$memory"' EXIT
	nqn=nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-0000000000aa
	for kind in writeback none auto writethrough tmpfs; do
		cache=${kind/tmpfs/writeback} image=disk.qcow2
		[ $kind = tmpfs ] && image=$memory/disk.qcow2
		"$ZNSIMG" create -f qcow2 -o zone.size=64M "$image" 1G >/dev/null
		rm -f ready && mkfifo ready
		strace -f -o calls -e signal=none "$ZNSD" --listen 127.0.0.1:0 --port-file port \
			--shadow "$tmp/shadow" --ready-fd 9 --cache $cache --nqn $nqn "$image" 9>ready 2>log &
		tracer=$!
		timeout 60 head -c 1 ready >/dev/null
		"$ZNSPROBE" 127.0.0.1 "$(cat port)" $nqn write 0 8192 1 verify 0 8192 1 flush reset 0 >probe.out ||
			fail "$kind: the probe: $(cat probe.out log)"
		kill -TERM "$(sed -n '1s/ .*//p' calls)"
		wait $tracer || fail "$kind: znsd ended $?: $(cat log)"
		sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' calls | sort -u >used
		[ "$(wc -l <used)" -ge 30 ] || fail "$kind: only $(wc -l <used) system calls were seen"
		comm -23 used admitted >missing
		expect_equal "$(xargs <missing)" "" "$kind: calls that the sandbox refuses"
		xargs <used # for the curious: ctest -V
	done
fi

finish
