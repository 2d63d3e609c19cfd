# the power of the drive is cut in the middle of work, ROUNDS times each: with btrfs, then with zonefs, on it.  The file
# system is then clean, and what was synced before the cut is there.  Needs znsd-cut (tests/cut); drive-test gives the seeds.
#
# A cut is final for what the host had mounted: it could not know what the drive's cache has lost.  So the controller is
# deleted, which fails all that is in flight, the file system unmounted, and the drive, when it is back, connected anew.
# Deleted once the host has noticed: one that is deleted before does not recover from errors any more, and all in flight
# waits for the time-out of 30 s.
#
# The host must not use multipath (APPEND=nvme_core.multipath=N): 6.12 loops for ever in disk_free_zone_resources() when a
# path goes while writes to its zones are in flight.  The failover takes their bios away from the path's zone write plugs,
# which so keep a reference, and are never freed.  And a flush under way is then said to be done (docs/testing.md).
. /usr/lib/guest.sh
ROUNDS=${ROUNDS:-10} STEP=${STEP:-60}
RANDOM=${SEED:-1}
say "seed ${SEED:-1}, $ROUNDS rounds with each"
modprobe -qa btrfs zonefs 2>/dev/null
dd if=/dev/urandom of=/tmp/data bs=1M count=4 status=none
work=/tmp/work
mkdir -p $work

# What the kernel says of a disk that is gone
EXPECTED_COMPLAINTS='I/O error|lost (async |sync )?page write|BTRFS|btrfs|zonefs|Buffer I/O|blk_update_request'

slice() { dd if=/tmp/data iflag=skip_bytes,count_bytes,fullblock bs=64k skip="$1" count="$2" status=none; } # FROM LENGTH
stopped() { [ -e $work/stop ]; }
failures() { sed 's/^/    /' $work/wrong; [ ! -s $work/wrong ]; } # the status of a check that has collected sentences

cut_now() { # NAME: while the workers work; then nothing is mounted, nothing connected, and the drive is back
	local i workers
	workers=$(jobs -p)
	sleep "$(printf '%d.%02d' $((RANDOM % 2)) $((RANDOM % 100)))"
	bound "$STEP" "$1: cut"
	host_do cut >$work/cut || { cat $work/cut; return 1; }
	touch $work/stop
	bound "$STEP" "$1: disconnect"
	gone && disconnect || return
	bound "$STEP" "$1: end of the workers"
	# shellcheck disable=SC2086
	wait $workers
	rm $work/stop
	bound "$STEP" "$1: unmount"
	for i in $(seq 20); do
		umount /mnt 2>$work/umount && break
		sleep 0.2
	done
	! grep -q ' /mnt ' /proc/mounts || { cat $work/umount; return 1; }
	bound "$STEP" "$1: connect"
	host_do start && connect -i 2
}

### btrfs

# write files and sync each: what then is in $work/sums must be there for ever.  A sync counts if the drive was there when
# it returned: 6.12 may say that one is done whose commit was aborted for the loss of the drive (docs/testing.md).
sync_files() {
	local n from length f state
	for n in $(seq 1000); do
		stopped && return
		from=$((RANDOM * 64)) length=$((1 + RANDOM * RANDOM % 300000)) f=/mnt/synced/$1.$n
		slice $from $length >$f && sync $f || continue
		case $((n % 4)) in
		0) mv $f $f.renamed && sync $f.renamed && f=$f.renamed || continue ;;
		1) sync -f $f || continue ;;
		esac
		read -r state <"/sys/class/nvme/$C/state" && [ "$state" = live ] || return
		echo "$from $length $f" >>$work/sums
	done
}
other_files() { # and files that come, grow, change and go without a sync
	local n f
	for n in $(seq 1000); do
		stopped && return
		f=/mnt/other/$((RANDOM % 20))
		case $((RANDOM % 5)) in
		0) rm -f $f ;;
		1) slice 0 $((RANDOM * 8)) >>$f ;;
		2) slice $((RANDOM * 16)) $((RANDOM * 40)) | dd of=$f bs=64k seek=$((RANDOM % 10)) conv=notrunc status=none ;;
		*) slice $((RANDOM * 16)) $((RANDOM * 100)) >$f ;;
		esac
	done 2>/dev/null
}
intact() {
	local from length f
	while read -r from length f; do
		slice "$from" "$length" | cmp - "$f" >>$work/wrong 2>&1
	done <$work/sums
	failures
}
forget_files() { # all but the last few, so that the disk does not fill up
	tail -n +11 $work/sums | cut -d' ' -f3 | xargs -r rm -f
	sed -i '11,$d' $work/sums
	rm -f /mnt/other/1*
}

make_btrfs() {
	reset_all && mkfs.btrfs -q -f -O zoned -d single -m single "/dev/$Z" && mount -t btrfs "/dev/$Z" /mnt &&
		mkdir /mnt/synced /mnt/other && sync -f /mnt && : >$work/sums
}
btrfs_round() { # N
	: >$work/wrong
	(sync_files "$1") 2>$work/sync_files &
	(other_files) 2>$work/other_files &
	check "btrfs $1: cut" cut_now "btrfs $1" || return
	sed "s,^,    ," $work/cut
	bound "$STEP" "btrfs $1: check"
	check "btrfs $1: btrfs check" btrfs check "/dev/$Z"
	check "btrfs $1: mount" mount -t btrfs "/dev/$Z" /mnt || return
	check "btrfs $1: $(wc -l <$work/sums) synced files are as before" intact
	[ $(($1 % 3)) != 0 ] || check "btrfs $1: scrub" btrfs scrub start -B /mnt
	check "btrfs $1: write on" forget_files
}

### zonefs: FILE has had lives, from truncation to truncation; $work/FILE has a line for each that may come back after a
### cut: its number, and the size that was synced.  The last is that of now.

PERIOD=2097152
origin() { echo $((($1 + $2 * 7) % 32 * 65536)); } # FILE LIFE: where in the data it begins; goes round after PERIOD
stream() { # FILE LIFE LENGTH: what it holds
	local left=$3 n from
	from=$(origin $1 $2)
	while [ "$left" -gt 0 ]; do
		n=$((left < PERIOD ? left : PERIOD))
		slice $from $n
		left=$((left - n))
	done
}
append_files() {
	local n file life size length
	for n in $(seq 1000); do
		stopped && return
		file=$((RANDOM % 5)) length=$((4096 << RANDOM % 6))
		read -r life _ < <(tail -1 $work/$file)
		size=$(stat -c %s /mnt/seq/$file)
		if [ $((size + length)) -gt "$ZONE_CAP" ] || [ $((RANDOM % 12)) = 0 ]; then
			echo "$((life + 1)) 0" >>$work/$file
			truncate -s 0 /mnt/seq/$file || return
			continue
		fi
		stream $file "$life" $((size + length)) | tail -c $length |
			dd of=/mnt/seq/$file bs=$length iflag=fullblock oflag=direct,append conv=notrunc status=none || return
		case $((RANDOM % 3)) in
		0) sync /mnt/seq/$file && echo "$life $((size + length))" >$work/$file.new && mv $work/$file.new $work/$file ;;
		esac
	done
}
sizes() { # of the files are those of the zones; the first zone is the superblock
	local file size start wp cap
	zones_blkzone | tail -n +2 | paste -d' ' - <(cd /mnt/seq && stat -c '%n %s' $(seq 0 $((ZONES - 2)))) >$work/sizes
	[ "$(wc -l <$work/sizes)" = $((ZONES - 1)) ] || echo "$(wc -l <$work/sizes) zones" >>$work/wrong
	while read -r start wp cap _ file size; do
		[ "$wp" != - ] || wp=$((start + cap))
		[ $(((wp - start) * LBA)) = "$size" ] || echo "file $file of $size bytes, its zone has $((wp - start)) blocks" >>$work/wrong
	done <$work/sizes
	failures
}
lives() {
	local file size life synced found
	for file in 0 1 2 3 4; do
		size=$(stat -c %s /mnt/seq/$file) found=
		while read -r life synced; do
			[ "$size" -lt "$synced" ] && continue
			stream $file "$life" "$size" | cmp - /mnt/seq/$file >>$work/differ 2>&1 && found="$life $size" && break
		done <$work/$file
		if [ "$found" ]; then
			echo "$found" >$work/$file
		else
			echo "file $file of $size bytes has lived as: $(tr '\n' ',' <$work/$file) $(tail -1 $work/differ)" >>$work/wrong
		fi
	done
	failures
}

make_zonefs() {
	local file
	reset_all && mkzonefs -f "/dev/$Z" >/dev/null && mount -t zonefs "/dev/$Z" /mnt || return
	for file in 0 1 2 3 4; do echo "0 0" >$work/$file; done
	flush
}
zonefs_round() { # N
	: >$work/wrong
	(append_files) 2>$work/append_files &
	check "zonefs $1: cut" cut_now "zonefs $1" || return
	sed "s,^,    ," $work/cut
	bound "$STEP" "zonefs $1: check"
	check "zonefs $1: mount" mount -t zonefs "/dev/$Z" /mnt || return
	check "zonefs $1: sizes" sizes
	check "zonefs $1: synced data as before" lives
}

[ "$(cat /sys/module/nvme_core/parameters/multipath)" = N ] || { bad "the host must have no multipath"; summary; }

for fs in btrfs zonefs; do
	check "connect" connect -i 2 || summary
	for n in $(seq "$ROUNDS"); do
		if [ $((n % 5)) = 1 ]; then
			bound "$STEP" "$fs $n: make"
			! grep -q ' /mnt ' /proc/mounts || check "unmount" umount /mnt
			check "make $fs" make_$fs || summary
		fi
		${fs}_round "$n" || summary
	done
	check "unmount" umount /mnt
	disconnect
done
summary
