# the ZNS commands of nvme-cli and blkzone: each acts, and shows in every report
. /usr/lib/guest.sh
# null_blk keeps the data of a reset zone; nvmet has few words for what zones refuse
REF_DIFFERS="it reads as zeroes|a write beside|one more"
check "connect" connect -i 2 || summary
reset_all

id=$(nvme zns id-ns "/dev/$Z")
id_field() { sed -n "s/^$1 *: //p" <<<"$id"; }
is "id-ns mor" $(($(id_field mor))) $((MAX_OPEN - 1))
is "id-ns mar" $(($(id_field mar))) $((MAX_ACTIVE - 1))
is "id-ns zoc" "$(id_field zoc)" 0
check "id-ns has the zone size" grep -qE "zsze:$(printf '%#x' $((ZONE_SIZE / LBA))) zdes:0 \(in use\)" <<<"$id"
zasl=$(nvme zns id-ctrl "/dev/$C" | sed -n 's/^zasl *: //p')
check "id-ctrl has zasl" test "$zasl" -ge 0
append_max=$((zasl ? 4096 << zasl : 131072)) # 0: as MDTS

same_everywhere() { # the three reports agree, and the image with them
	zones_nvme >/tmp/nvme && zones_blkzone >/tmp/blkzone && flush && zones_host >/tmp/host || return
	[ "$(wc -l </tmp/nvme)" = "$ZONES" ] && diff /tmp/nvme /tmp/blkzone && diff <(as_stored </tmp/nvme) <(as_stored </tmp/host)
}
state() { is "after $1, zone $2" "$(zone_state "$2")" "$3"; }

check "new: nvme, blkzone and the image agree" same_everywhere
dd if=/dev/urandom of=/tmp/data bs=128k count=8 status=none

put /tmp/data 0 0 65536
state "a write" 0 IMP_OPENED
is "the write pointer" "$(zone_wp 0)" $((65536 / LBA))
# The kernel remembers write pointers and does not see what nvme-cli does behind its back: after that a zone is
# written through the block device only when it was reset there.
for how in nvme blkzone; do
	if [ $how = nvme ]; then one=1; else one=5; fi
	zone() { # VERB ZONE
		if [ $how = nvme ]; then nvme zns "$1-zone" "/dev/$Z" -s "$(lba "$2")" -n 1
		else blkzone "$1" -o $(($2 * ZONE_SIZE / 512)) -l $((ZONE_SIZE / 512)) "/dev/$Z"; fi
	}
	put /tmp/data $one 0 $((LBA * 3))
	check "$how open" zone open $one
	state "$how open" $one EXP_OPENED
	put /tmp/data $one $((LBA * 3)) "$LBA" $((LBA * 3))
	state "a write to it" $one EXP_OPENED
	check "$how close" zone close $one
	state "$how close" $one CLOSED
	check "$how: agree" same_everywhere
	check "$how finish" zone finish $one
	state "$how finish" $one FULL
	check "the data is still there" holds /tmp/data $one 0 $((LBA * 4))
	check "$how finish of an empty zone" zone finish $((ZONES - 1))
	state "$how finish" $((ZONES - 1)) FULL
	check "$how: agree" same_everywhere
	check "$how reset" zone reset $one
	check "$how reset" zone reset $((ZONES - 1))
	state "$how reset" $one EMPTY
	is "its write pointer" "$(zone_wp $one)" "$(lba $one)"
	check "it reads as zeroes" holds /dev/zero $one 0 $((LBA * 4))
done

# Zone Append, at sizes below and above what fits into a capsule
at=0
for size in "$LBA" 8192 16384 65536 131072; do
	((size <= append_max)) || continue
	dd if=/tmp/data of=/tmp/piece bs=$size count=1 iflag=fullblock status=none
	said=$(nvme zns zone-append "/dev/$Z" -n 1 -s "$(lba 2)" -z $size -d /tmp/piece 2>&1)
	is "append of $size" "$said" "Success appended data to LBA $(printf %x $(($(lba 2) + at / LBA)))"
	check "append of $size reads back" holds /tmp/piece 2 $at $size
	at=$((at + size))
done
is "the write pointer after the appends" "$(zone_wp 2)" $(($(lba 2) + at / LBA))
check "appends: agree" same_everywhere

# what must be refused
dd if=/dev/zero of=/tmp/zero bs="$LBA" count=1 status=none
block() { nvme write "/dev/$Z" -s "$1" -c 0 -z "$LBA" -d /tmp/zero; } # LBA: write one block there
refused "append not at the start of a zone" "invalid field" \
	nvme zns zone-append "/dev/$Z" -n 1 -s $(($(lba 2) + 1)) -z "$LBA" -d /tmp/zero
refused "a write beside the write pointer" "invalid write" block $(($(lba 3) + 5))
nvme zns finish-zone "/dev/$Z" -n 1 -s "$(lba 3)" >/dev/null
refused "a write to a full zone" "full" block "$(lba 3)"
refused "close of an empty zone" "transition" nvme zns close-zone "/dev/$Z" -n 1 -s "$(lba 4)"
refused "an extended report, as there are no extensions" "invalid field" nvme zns report-zones "/dev/$Z" -n 1 -e -d 4

# the limits
reset_all
is "zones that are not empty" "$(zones_nvme | grep -vc EMPTY)" 0
for ((z = 0; z < MAX_OPEN; z++)); do
	put /tmp/data $z 0 "$LBA"
	blkzone open -o $((z * ZONE_SIZE / 512)) -l $((ZONE_SIZE / 512)) "/dev/$Z"
done
is "explicitly open zones" "$(blkzone report "/dev/$Z" | grep -c '(oe)')" "$MAX_OPEN"
refused "one more open" "too many open" nvme zns open-zone "/dev/$Z" -n 1 -s "$(lba $z)"
refused "one more write" "too many open" block "$(lba $z)"
check "close all" nvme zns close-zone "/dev/$Z" -n 1 -a
for ((; z < MAX_ACTIVE; z++)); do put /tmp/data $z 0 "$LBA"; done
refused "one more active" "too many active" block "$(lba $z)"
check "at the limits: agree" same_everywhere
check "finish all" nvme zns finish-zone "/dev/$Z" -n 1 -a
is "full zones" "$(blkzone report "/dev/$Z" | grep -c '(fu)')" "$MAX_ACTIVE"
check "finish all: agree" same_everywhere
check "reset all" nvme zns reset-zone "/dev/$Z" -n 1 -a
disconnect
summary
