# fio in zoned mode: $FIO_MB a job; every byte written is verified
. /usr/lib/guest.sh
check "connect" connect -i 2 || summary
# Before 6.10 only this scheduler keeps writes to a zone in order, and nobody chooses it by default.
if [ "$GUEST" = 6.1 ]; then echo mq-deadline >"/sys/block/$P/queue/scheduler"; fi
mb=${FIO_MB:-64}
zone_mb=$((ZONE_CAP >> 20))
zones=$(((mb + zone_mb - 1) / zone_mb + 1))

# No random map: writes only go where the write pointer is, and a zone is written again after a reset.
run() { # NAME ARGUMENT...
	local name=$1
	shift
	check "$name" fio --name=job --filename="/dev/$Z" --zonemode=zbd --direct=1 --group_reporting --randrepeat=1 \
		--max_open_zones="$MAX_OPEN" "$@" && grep -E '^ +(read|write):' /tmp/check.out | cut -d'(' -f1
}
area() { echo --offset=$(($1 * ZONE_SIZE)) --size=$(($2 * ZONE_SIZE)); } # FIRST-ZONE ZONES

# shellcheck disable=SC2046
for engine in libaio io_uring; do
	reset_all
	run "$engine: sequential write, verified" --ioengine=$engine --rw=write --bs=128k --iodepth=8 $(area 0 $zones) \
		--io_size=${mb}M --verify=crc32c --verify_fatal=1
	run "$engine: sequential read" --ioengine=$engine --rw=read --bs=128k --iodepth=8 $(area 0 $zones) --io_size=${mb}M
	run "$engine: random read" --ioengine=$engine --rw=randread --bs=4k --iodepth=16 $(area 0 $zones) \
		--io_size=$((mb / 8))M
	run "$engine: random write, verified" --ioengine=$engine --rw=randwrite --bs=16k --iodepth=4 \
		$(area 8 $zones) --io_size=$((mb / 4))M --verify=crc32c --verify_fatal=1
	run "$engine: mixed reads and writes" --ioengine=$engine --rw=randrw --bs=16k --iodepth=8 \
		$(area 0 $((zones * 2))) --io_size=$((mb / 4))M
	reset_all
	run "$engine: four jobs, each its zones, verified" --ioengine=$engine --rw=write --bs=64k --iodepth=4 --numjobs=4 \
		--size=$((zones * ZONE_SIZE)) --offset_increment=$((zones * ZONE_SIZE)) --io_size=$((mb / 4))M \
		--verify=crc32c --verify_fatal=1
	reset_all
	run "$engine: four jobs in all zones, $MAX_OPEN open" --ioengine=$engine --rw=randwrite --bs=4k --iodepth=4 \
		--numjobs=4 $(area 0 "$ZONES") --io_size=$((mb / 16))M --verify=crc32c --do_verify=0
	is "zones open or closed are at most the limit" "$(blkzone report "/dev/$Z" | grep -cE '\((oi|oe|cl)\)' |
		awk -v m="$MAX_ACTIVE" '{ print $1 <= m }')" 1
done
reset_all
# shellcheck disable=SC2046
run "a zone to its very end, and over it into the next" --ioengine=psync --rw=write --bs=1M $(area 0 3) \
	--io_size=$((zone_mb + 4))M --verify=crc32c --verify_fatal=1
is "the first zone" "$(zone_state 0)" FULL
disconnect
summary
