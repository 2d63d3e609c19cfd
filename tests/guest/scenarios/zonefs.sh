# zonefs: make, mount, write, sync, mount again, compare
. /usr/lib/guest.sh
check "connect" connect -i 2 || summary
reset_all
modprobe -qa zonefs 2>/dev/null
dd if=/dev/urandom of=/tmp/data bs=128k count=16 status=none

check "mkzonefs" mkzonefs -f "/dev/$Z"
check "mount" mount -t zonefs "/dev/$Z" /mnt
is "files" "$(ls /mnt/seq | wc -l)" $((ZONES - 1)) # the first zone is the superblock
is "largest size" "$(stat -fc %b /mnt >/dev/null; stat -c %b /mnt/seq/0)" $((ZONE_CAP / 512))

append() { dd if=/tmp/data of="/mnt/seq/$1" bs="$2" count="$3" iflag=fullblock oflag=direct,append"${4:+,$4}" conv=notrunc status=none; }
check "append to a file" append 0 128k 4
check "append to it, synchronous" append 0 4096 1 dsync
check "append to another" append 1 4096 16
check "sync" sync
is "size of the first" "$(stat -c %s /mnt/seq/0)" $((4 * 131072 + 4096))
check "finish a file by growing it to its capacity" truncate -s $ZONE_CAP /mnt/seq/2
check "fill and reset a file" eval "append 3 128k 1 && truncate -s 0 /mnt/seq/3"
sums() { (cd /mnt/seq && sha256sum 0 1 3 && stat -c '%n %s' *); }
sums >/tmp/before
check "unmount" umount /mnt
check "disconnect" disconnect
check "connect again" connect -i 2
check "mount again" mount -t zonefs "/dev/$Z" /mnt
sums >/tmp/after
check "all files are as before" diff /tmp/before /tmp/after
check "and hold what was written" eval "{ head -c 524288 /tmp/data; head -c 4096 /tmp/data; } | cmp - /mnt/seq/0"
check "write on where it stopped" append 0 4096 2
umount /mnt
is "the zone behind the third file" "$(zone_state 3)" FULL
is "the zone behind the fourth" "$(zone_state 4)" EMPTY
disconnect
summary
