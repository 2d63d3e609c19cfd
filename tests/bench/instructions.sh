#!/bin/bash
# SPDX-License-Identifier: MIT
# What a command costs the drive in instructions of its own, the kernel's not counted: as many as are written down in
# instructions.txt, give or take a tenth. Unlike time they are the same on a busy machine. More: somebody made the hot
# path slower. Fewer: well done, write it down. And how many locks it takes: what a lock costs when loops share it shows
# only on a machine with many processors, but that it is taken shows everywhere.
. "$(dirname "$0")/../functions.sh"
need_env ZNSD ZNSIMG ZNSBENCH
need valgrind
here=$(cd "$(dirname "$0")" && pwd)
disk_tmpdir # a file in memory takes another path
. "$here/../daemon.sh"

[ -z "${SANITIZE:-}" ] || skip "a sanitized build has other instructions"
[[ ${COMPILER:-} == GNU ]] || skip "written down for gcc, this is ${COMPILER:-unknown}"
[[ ${BUILD_TYPE:-} == RelWithDebInfo ]] || skip "written down for RelWithDebInfo, this is ${BUILD_TYPE:-unknown}"

it "is filled, for the reads"
make_image full.qcow2 size=512M,zone.size=16M,zone.mode=host-managed
start_znsd full.qcow2
expect_status 0 timeout 100 "$ZNSBENCH" --rw randread --prefill --zones 1 --seconds 0.05 127.0.0.1 "$port" "$nqn"
stop_znsd || fail "znsd ended $?"

# Only what a loop does when a socket is readable, and when it sends, is counted.
cat >counted <<END
#!/bin/bash
exec valgrind -q --tool=callgrind --callgrind-out-file=$tmp/calls --collect-atstart=no \
	--toggle-collect=peer_readable --toggle-collect=flush_dirty "$ZNSD" "\$@"
END
chmod +x counted
ZNSD=$tmp/counted

# Of a command that came: instructions, and locks taken.
per_command()
{
	awk '
	/^c?fn=/ {
		split($0, part, /[()]/)
		id = part[2]
		if (part[3] != "")
			name[id] = substr(part[3], 2)
		callee = /^cfn/ ? name[id] : ""
	}
	/^calls=/ {
		split($1, n, "=")
		if (callee == "tgt_req_init")
			commands += n[2]
		else if (callee ~ /^pthread_(mutex|rwlock|spin)_[a-z]*lock/ && callee !~ /unlock/)
			locks += n[2]
	}
	/^(totals|summary):/ { all = $2 }
	END {
		if (commands > 300)
			printf "%.0f %.2f\n", all / commands, locks / commands
		else
			print "only " commands " commands"
	}' calls
}

while read -r rw bs depth zones want locks_want options; do
	[[ $rw && $rw != \#* ]] || continue
	it "$rw of $bs, depth $depth, $zones zones $options"
	cp full.qcow2 disk.qcow2
	start_znsd disk.qcow2
	# shellcheck disable=SC2086
	expect_status 0 timeout 100 "$ZNSBENCH" --seconds 2 --rw "$rw" --bs "$bs" --depth "$depth" --zones "$zones" $options \
		127.0.0.1 "$port" "$nqn"
	stop_znsd || fail "znsd ended $?"
	read -r got locks < <(per_command)
	echo "$rw $bs $depth $zones $got $locks $options"
	[[ $got =~ ^[0-9]+$ ]] && ((got * 10 <= want * 11 && got * 10 >= want * 9)) ||
		fail "$got instructions a command, not $want"
	awk "BEGIN { exit !($locks <= $locks_want + 0.01) }" || fail "$locks locks a command, not $locks_want"
	rm -f disk.qcow2 calls
done <"$here/instructions.txt"
finish
