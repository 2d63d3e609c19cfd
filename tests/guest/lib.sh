# Functions for scenarios; each begins with `. /usr/lib/guest.sh` and ends with `summary`.
#
# The drive under test is znsd on the host, $HOST:$PORT, subsystem $NQN, one namespace with the geometry of $LBA,
# $ZONES, $ZONE_SIZE, $ZONE_CAP (bytes), $MAX_OPEN and $MAX_ACTIVE.  With TARGET=ref it is this kernel's own nvmet
# over a zoned null_blk instead: that shows whether a scenario is right, and how the kernel's target differs.
#
# connect sets C, the controller (nvme0), and Z, the disk (nvme0n1).

PASSED=0 FAILED=0
QUIET_FROM=$(dmesg | wc -l)

now() { cut -d' ' -f1 /proc/uptime; }
say() { echo "[$(now)] $*"; }
ok() { PASSED=$((PASSED + 1)); say "ok: $*"; }
bad() { # what is known of the reference ($REF_DIFFERS) is not a failure
	if [ "$TARGET" = ref ] && grep -qE "^(${REF_DIFFERS:-^$})" <<<"$*"; then say "the reference differs: $*"; return; fi
	FAILED=$((FAILED + 1))
	say "FAILED: $*"
}

check() { # NAME COMMAND...: passes if the command does; shows what it said if it does not
	local name=$1 rc
	shift
	"$@" >/tmp/check.out 2>&1
	rc=$?
	if [ $rc = 0 ]; then ok "$name"; else bad "$name (status $rc): $*"; tail -20 /tmp/check.out; fi
	return $rc
}

is() { # NAME GOT EXPECTED
	if [ "$2" = "$3" ]; then ok "$1 is $3"; else bad "$1 is '$2', not '$3'"; fi
}

refused() { # NAME PATTERN COMMAND...: passes if the command fails and says something that matches
	local name=$1 pattern=$2
	shift 2
	if "$@" >/tmp/check.out 2>&1; then bad "$name: not refused: $*"; return; fi
	if grep -qiE "$pattern" /tmp/check.out; then ok "$name"; else bad "$name: refused with other words"; cat /tmp/check.out; fi
}

summary() { # also: the kernel has not complained; ends the scenario
	local complaints
	[ "$TARGET" = ref ] && [ "$C" ] && disconnect
	complaints=$(dmesg | tail -n +$((QUIET_FROM + 1)) | grep -E 'BUG|WARNING|Oops|hung|blocked for more|critical|I/O error|duplicate' |
		grep -vE "dev nullb0|${EXPECTED_COMPLAINTS:-^$}")
	[ -z "$complaints" ] || bad "the kernel says: $complaints"
	echo "$SCENARIO: $PASSED passed, $FAILED failed"
	[ "$FAILED" = 0 ]
	exit
}

### a bound: what takes longer says where everybody waits, and fails; run then ends the guest

bound() { # [SECONDS NAME]: for what follows; without arguments none
	[ "$BOUND" ] || exec {BOUND}> >(bound_watch >/dev/console 2>&1)
	echo "${1:-1000000} ${2-}" >&"$BOUND"
}
BOUND=

bound_watch() { # reads bounds
	local seconds=1000000 name='' next what
	while true; do
		read -r -t "$seconds" next what
		case $? in
		0) seconds=$next name=$what ;;
		1) return ;; # the scenario has ended
		*) break ;;
		esac
	done
	say "FAILED: $name: not done after $seconds s"
	where
	echo "GUEST-EXIT: 1"
}

where() { # where each process waits in the kernel, and each thread of the kernel that waits for something in particular
	local p stat
	for p in /proc/[0-9]*; do
		stat=$(<"$p/stat") 2>/dev/null || continue
		stat=${stat##*) }
		[ "${stat%% *}" = D ] || [ "${stat%% *}" = R ] || [ "$(tr -d '\0' <"$p/cmdline")" ] || continue
		echo "${p#/proc/} $(<"$p/comm") ${stat%% *} in $(<"$p/wchan"): $(tr '\0' ' ' <"$p/cmdline")"
		cat "$p/stack" # none in user-mode Linux
	done 2>/dev/null
	dmesg | tail -n 30
}

### the reference: nvmet over null_blk

ref_start() {
	local n=/sys/kernel/config/nullb/nullb0 t=/sys/kernel/config/nvmet attribute
	if ! [ -d $n ]; then
		modprobe -qa nvmet-tcp 2>/dev/null
		[ -d /sys/kernel/config/nullb ] || modprobe null_blk nr_devices=0
		mkdir $n
		for attribute in zoned=1 memory_backed=1 blocksize="$LBA" size=$((ZONES * ZONE_SIZE >> 20)) \
			zone_size=$((ZONE_SIZE >> 20)) zone_capacity=$((ZONE_CAP >> 20)) zone_max_open="$MAX_OPEN" \
			zone_max_active="$MAX_ACTIVE" cache_size=1 power=1; do
			echo "${attribute#*=}" >"$n/${attribute%%=*}" || return
		done
		mkdir -p $t/subsystems/"$NQN"/namespaces/1 $t/ports/1
		echo 1 >$t/subsystems/"$NQN"/attr_allow_any_host
		echo -n /dev/nullb0 >$t/subsystems/"$NQN"/namespaces/1/device_path
		echo 1 >$t/subsystems/"$NQN"/namespaces/1/enable
		for attribute in trtype=tcp adrfam=ipv4 traddr="$HOST" trsvcid="$PORT"; do
			echo "${attribute#*=}" >$t/ports/1/addr_${attribute%%=*} || return
		done
	fi
	[ -e $t/ports/1/subsystems/"$NQN" ] || ln -s $t/subsystems/"$NQN" $t/ports/1/subsystems/"$NQN"
}

if [ "$TARGET" = ref ]; then
	HOST=127.0.0.1 PORT=4420
	ref_start || bad "the reference target does not start"
fi

### the host

host_do() { # WORD...: ask drive-test for something, print the answer, return the status
	local ask n
	if [ "$TARGET" = ref ]; then
		case $1 in
		stop | kill) rm /sys/kernel/config/nvmet/ports/1/subsystems/"$NQN" ;;
		start) ref_start ;;
		zones) blkzone report /dev/nullb0 ;;
		esac
		return
	fi
	n=$(cat /tmp/asked 2>/dev/null || echo 0)
	echo $((n + 1)) >/tmp/asked
	ask=/host/$n
	echo "$*" >"$ask.new"
	mv "$ask.new" "$ask.ask"
	n=0
	until [ -e "$ask.status" ]; do
		sleep 0.1
		n=$((n + 1))
		[ $n -lt 600 ] || { echo "no answer to '$*'"; return 1; }
	done
	cat "$ask.answer"
	return "$(cat "$ask.status")"
}

### the drive

find_drive() { # wait for the controller and its disk; sets C, Z and P, the path behind the disk (itself, without multipath)
	local s n i
	for i in $(seq 300); do
		for s in /sys/class/nvme/nvme*; do
			[ "$(cat "$s/subsysnqn" 2>/dev/null)" = "$NQN" ] || continue
			C=${s##*/}
			for n in "$s"/nvme*n*; do
				# nvme0c0n1 is a path to nvme0n1
				P=${n##*/}
				Z=$(sed 's/c[0-9]*n/n/' <<<"$P")
				[ -b "/dev/$Z" ] && [ "$(cat "/sys/block/$Z/size")" != 0 ] && return 0
			done
		done
		sleep 0.1
	done
	say "no disk for $NQN"
	C='' Z=''
	return 1
}

connect() { # [NVME-CONNECT-ARGUMENT...]
	nvme connect -t tcp -a "$HOST" -s "$PORT" -n "$NQN" "$@" && find_drive
}

disconnect() {
	local i
	nvme disconnect -n "$NQN" >/dev/null
	for i in $(seq 100); do
		[ -e "/sys/class/nvme/$C" ] || { C='' Z=''; return 0; }
		sleep 0.1
	done
	return 1
}

gone() { # the host has noticed that the drive is
	local i
	for i in $(seq 400); do [ "$(cat "/sys/class/nvme/$C/state")" = connecting ] && return 0; sleep 0.1; done
	say "$C is $(cat "/sys/class/nvme/$C/state")"
	return 1
}

queue() { cat "/sys/block/$Z/queue/$1"; }
path_queue() { cat "/sys/block/$P/queue/$1"; }
lba() { echo $(($1 * ZONE_SIZE / LBA)); } # ZONE: its first block
reset_all() { blkzone reset "/dev/$Z"; }
flush() { nvme flush "/dev/$Z" -n 1; }

# put FILE ZONE OFFSET LENGTH [SKIP]: write LENGTH bytes of FILE (from SKIP) at OFFSET in a zone, as direct I/O of
# 128 KiB and one smaller piece (dd would write a partial block through the page cache)
put() {
	local skip=${5:-0} at=$(($2 * ZONE_SIZE + $3)) whole=$(($4 & ~131071)) length=$4
	[ $whole = 0 ] || put_blocks "$1" "$skip" $at 131072 $((whole / 131072)) || return
	[ $whole = "$length" ] || put_blocks "$1" $((skip + whole)) $((at + whole)) $((length - whole)) 1
}
put_blocks() { # FILE SKIP AT SIZE COUNT
	dd if="$1" of="/dev/$Z" bs="$4" count="$5" iflag=fullblock,skip_bytes oflag=direct,seek_bytes conv=notrunc \
		skip="$2" seek="$3" status=none
}

holds() { # FILE ZONE OFFSET LENGTH [SKIP]: the zone holds these bytes
	dd if="/dev/$Z" bs=128k iflag=direct,fullblock,skip_bytes,count_bytes skip=$(($2 * ZONE_SIZE + $3)) count="$4" \
		status=none | cmp -n "$4" -i "${5:-0}:0" "$1" -
}

### zone reports in one form, a line a zone: SLBA WP CAPACITY STATE, in blocks; a full zone has no write pointer
#
# Plain bash, for a process costs 40 ms in user-mode Linux.

zones_nvme() { # [REPORT-ZONES-ARGUMENT...]
	local slba wp cap state
	nvme zns report-zones "/dev/$Z" "$@" | while read -r _ slba _ wp _ cap _ state _; do
		wp=$((wp))
		case $state in
		0x10) state=EMPTY ;; 0x20) state=IMP_OPENED ;; 0x30) state=EXP_OPENED ;; 0x40) state=CLOSED ;;
		0xd0) state=READONLY ;; 0xe0) state=FULL wp=- ;; 0xf0) state=OFFLINE ;;
		*) continue ;; # the title
		esac
		echo $((slba)) $wp $((cap)) $state
	done
}

zones_blkzone() { # [REPORT-ARGUMENT...]
	blkzone report "$@" "/dev/$Z" | blkzone_plain
}

blkzone_plain() {
	local start cap wptr state wp line
	while read -r _ start _ _ _ cap _ wptr line; do
		start=$((${start%,} * 512 / LBA))
		wp=$((start + wptr * 512 / LBA))
		case $line in
		*'(em)'*) state=EMPTY ;; *'(oi)'*) state=IMP_OPENED ;; *'(oe)'*) state=EXP_OPENED ;; *'(cl)'*) state=CLOSED ;;
		*'(fu)'*) state=FULL wp=- ;; *'(ro)'*) state=READONLY ;; *) state=OFFLINE ;;
		esac
		echo $start $wp $((${cap%,} * 512 / LBA)) $state
	done
}

zones_host() { host_do zones | blkzone_plain; } # what the image says
as_stored() { sed "s/[IE][MX]P_OPENED\$/CLOSED/"; } # which does not know which zones are open
zone_report() { zones_blkzone -o $(($1 * ZONE_SIZE / 512)) -c 1; } # ZONE
zone_state() { local state; read -r _ _ _ state < <(zone_report "$1"); echo "$state"; }
zone_wp() { local wp; read -r _ wp _ < <(zone_report "$1"); echo "$wp"; }
