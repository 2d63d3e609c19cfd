# btrfs on zones: make, mount, write, unmount, check, mount again, compare
. /usr/lib/guest.sh
check "connect" connect -i 2 || summary
reset_all
modprobe -qa btrfs 2>/dev/null

check "mkfs.btrfs" mkfs.btrfs -q -f -O zoned -d single -m single "/dev/$Z"
check "mount" mount -t btrfs "/dev/$Z" /mnt
check "copy files" cp -r /usr/bin /mnt/bin
check "many small files" eval 'for i in $(seq 300); do echo "file $i" >/mnt/small.$i || exit; done'
check "a file" dd if=/dev/urandom of=/mnt/big bs=1M count="${BTRFS_MB:-64}" status=none
check "fsync" sync /mnt/big
check "direct writes" dd if=/mnt/big of=/mnt/direct bs=1M count=8 oflag=direct status=none
rm -f /mnt/small.1*
check "sync" sync
sums() { (cd /mnt && find . -type f | LC_ALL=C sort | xargs sha256sum); }
sums >/tmp/before
check "unmount" umount /mnt
check "disconnect" disconnect
check "connect again" connect -i 2
check "btrfs check" btrfs check "/dev/$Z"
check "mount again" mount -t btrfs "/dev/$Z" /mnt
sums >/tmp/after
check "$(wc -l </tmp/before) files are as before" cmp /tmp/before /tmp/after
check "scrub" btrfs scrub start -B /mnt
check "unmount" umount /mnt
disconnect
summary
