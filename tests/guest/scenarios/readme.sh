# What README.md tells the host to type (its blocks marked "sh host"), line by line, at this guest's address of the drive.
. /usr/lib/guest.sh

n=0
while IFS= read -r line; do
	n=$((n + 1))
	line=${line//127.0.0.1/$HOST}
	line=${line//-s 4420/-s $PORT}
	case $line in modprobe*) line="$line || true" ;; esac # in user-mode Linux it is built in
	check "README: $line" bash -c "$line"
	case $line in *'nvme connect'*) check "the disk is there" find_drive ;; esac
done < <(sed -n '/^```sh host$/,/^```$/{/^```/d;p}' /files/README.md)
[ "$n" -ge 5 ] || bad "README has only $n lines for the host"
summary
