# discover, connect in every way, find the disk as it should be, disconnect
. /usr/lib/guest.sh

log=$(nvme discover -t tcp -a "$HOST" -s "$PORT" 2>&1)
entry=$(echo "$log" | sed -n "/subtype: nvme subsystem/,\$p")
check "discover names the subsystem" grep -q "subnqn: *$NQN\$" <<<"$entry"
check "discover names the port" grep -q "trsvcid: *$PORT\$" <<<"$entry"
check "the discovery entry is TCP over IPv4" grep -q "trtype: *tcp.*adrfam: *ipv4" <<<"$(tr '\n' ' ' <<<"$log")"

disk() { # what the kernel made of it; the limits at the path, for before 6.10 a multipath head does not pass them on
	is "zoned" "$(queue zoned)" host-managed
	is "logical_block_size" "$(queue logical_block_size)" "$LBA"
	is "size" "$(cat "/sys/block/$Z/size")" $((ZONES * ZONE_SIZE / 512))
	is "nr_zones" "$(queue nr_zones)" "$ZONES"
	is "chunk_sectors" "$(queue chunk_sectors)" $((ZONE_SIZE / 512))
	is "max_open_zones" "$(path_queue max_open_zones)" "$MAX_OPEN"
	is "max_active_zones" "$(path_queue max_active_zones)" "$MAX_ACTIVE"
	is "write_cache" "$(queue write_cache)" "write back"
	is "fua" "$(queue fua)" 1
	is "read-only" "$(blockdev --getro "/dev/$Z")" 0
	say "zone_append_max_bytes $(queue zone_append_max_bytes), max_hw_sectors_kb $(queue max_hw_sectors_kb)"
	check "zone_append_max_bytes is not zero" test "$(queue zone_append_max_bytes)" -gt 0
	is "capacity of each zone" "$(zones_blkzone | cut -d' ' -f3 | sort -u)" $((ZONE_CAP / LBA))
}

dd if=/dev/urandom of=/tmp/data bs=128k count=3 status=none
once() { # the I/O that each kind of connection must carry: in-capsule, R2T, several PDUs
	reset_all && put /tmp/data 1 0 "$LBA" && put /tmp/data 1 "$LBA" 8192 "$LBA" &&
		put /tmp/data 1 $((LBA + 8192)) 262144 $((LBA + 8192)) && flush &&
		holds /tmp/data 1 0 "$LBA" && holds /tmp/data 1 0 $((LBA + 8192 + 262144))
}

# The host ends the connection unless ICResp has the digests it asked for: connected means in use.
first=1
for digests in "" "-g" "-G" "-g -G"; do
	for queues in 1 2 8; do
		# shellcheck disable=SC2086
		if ! check "connect $digests -i $queues" connect $digests -i $queues; then
			dmesg | tail -5
			continue
		fi
		cpus=$(nproc)
		is "I/O queues" $(($(cat "/sys/class/nvme/$C/queue_count") - 1)) $((queues < cpus ? queues : cpus))
		[ ! "$first" ] || { disk; first=''; }
		check "write, flush and read" once
		[ $queues != 1 ] || check "nvme list shows it" grep -q "^/dev/$Z " <<<"$(nvme list)"
		check "disconnect" disconnect
	done
done

# read, write and polled queues of their own (with one processor the host itself cannot)
if [ "$(nproc)" -gt 1 ] && check "connect with write and poll queues" connect -i 2 -W 2 -P 2; then
	say "$(cat "/sys/class/nvme/$C/queue_count") queues"
	check "write, flush and read" once
	check "disconnect" disconnect
fi
refused "an unknown subsystem" "failed|No such|Input/output|not connect" nvme connect -t tcp -a "$HOST" -s "$PORT" -n "$NQN-not"
summary
