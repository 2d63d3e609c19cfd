# the drive is stopped and started, then killed and started: every zone is as before
. /usr/lib/guest.sh
check "connect" connect -i 2 || summary
reset_all
dd if=/dev/urandom of=/tmp/data bs=1M count=$(((ZONE_CAP >> 20) + 1)) status=none

zone() { nvme zns "$1-zone" "/dev/$Z" -n 1 -s "$(lba "$2")" >/dev/null; }
tell() { echo "$1 $2 $3" >>/tmp/written; } # ZONE LENGTH SKIP: what the zone holds
fill() { put /tmp/data "$1" 0 "$2" "$3" && tell "$@"; }
extend() { # ZONE LENGTH: write on
	local had skip
	read -r _ had skip < <(grep "^$1 " /tmp/written)
	put /tmp/data "$1" "$had" "$2" $((skip + had)) && sed -i "s/^$1 .*/$1 $((had + $2)) $skip/" /tmp/written
}
all_data() { while read -r zone length skip; do holds /tmp/data "$zone" 0 "$length" "$skip" || { echo "zone $zone"; return 1; }; done </tmp/written; }

write_all() {
	: >/tmp/written
	fill 1 1048576 0 && zone open 1 &&                  # explicitly open
		fill 2 $((65536 * 5 + LBA)) 4096 && zone close 2 && # closed, in the middle of a cluster
		fill 3 "$ZONE_CAP" 8192 &&                           # full to the last block
		fill 4 262144 12288 && zone finish 4 &&              # finished
		zone finish 5 &&                                     # finished empty
		fill 6 "$LBA" 16384 &&                               # one block
		fill 7 $((65536 + LBA * 3)) 20480 &&                 # implicitly open
		fill 8 65536 0 && zone reset 8 && sed -i '/^8 /d' /tmp/written && # empty again
		fill $((ZONES - 1)) 131072 24576                     # the last zone
}

check "write zones into all states" write_all
check "flush" flush
zones_nvme | as_stored >/tmp/before

same_drive() { # NAME
	zones_nvme >/tmp/nvme
	if [ "$TARGET" = ref ]; then as_stored </tmp/nvme; else cat /tmp/nvme; fi >/tmp/after # nvmet does not forget
	check "$1: every write pointer and state as before, open zones closed" diff /tmp/before /tmp/after
	check "$1: all data as before" all_data
	check "$1: blkzone agrees" diff /tmp/nvme <(zones_blkzone)
	check "$1: write on in a closed zone" extend 2 8192
	check "$1: write on in a zone that was open" extend 7 "$LBA"
	check "$1: all data" all_data
}
live() { local i; for i in $(seq 400); do [ "$(cat "/sys/class/nvme/$C/state")" = live ] && return 0; sleep 0.1; done; return 1; }

disconnect
check "connect, to be kept through the stop" connect -i 2 --reconnect-delay=1 --ctrl-loss-tmo=60 --keep-alive-tmo=5
check "stop the drive" host_do stop
if [ "$TARGET" != ref ]; then check "the host notices" gone; fi
check "start it" host_do start
check "the host finds it again by itself" live
same_drive "stopped"

# killed: what was written stands two seconds later, flushed or not
check "write on before the kill" extend 6 $((LBA * 2))
check "a zone more" fill 9 196608 28672
check "a zone less" zone reset 4
sed -i '/^4 /d' /tmp/written
sleep 3
zones_nvme | as_stored >/tmp/before
check "disconnect" disconnect
check "kill the drive" host_do kill
check "start it" host_do start
check "connect" connect -i 2
same_drive "killed"
disconnect
summary
