# SPDX-License-Identifier: MIT
# A znsd for the shell tests. Source it after functions.sh and tmpdir:  . "$here/../daemon.sh"
#
# One daemon at a time, on 127.0.0.1 and a port of the kernel's; it is ended by its pid, at the
# latest with the script.

znsd_pid=
port=
nqn=nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-0000000000aa
seed="size=768M,zone.size=64M,zone.capacity=64M,zone.conventional_zones=0,zone.max_append_bytes=4096,\
zone.max_open_zones=6,zone.max_active_zones=8,zone.mode=host-managed"

# make_image FILE [OPTIONS]: the seed's image, or another.
make_image()
{
	"$ZNSIMG" create -f qcow2 "$1" -o "${2:-$seed}" >/dev/null || {
		echo "cannot create $1" >&2
		exit 1
	}
}

# start_znsd ARG...: waits until it is ready. Its port is in $port, its stderr in $tmp/znsd.log, or in the
# file that the variable znsd_log names.
start_znsd()
{
	local ready

	rm -f "$tmp/port" "$tmp/ready"
	mkfifo "$tmp/ready" || exit 1
	"$ZNSD" --listen 127.0.0.1:0 --port-file "$tmp/port" --ready-fd 9 --nqn "$nqn" "$@" \
		>>"${znsd_log:-$tmp/znsd.log}" 2>&1 9>"$tmp/ready" &
	znsd_pid=$!
	trap 'kill_znsd; rm -rf "$tmp"' EXIT
	# Ends with the first line or byte, or at once when znsd ended without one.
	ready=$(timeout 60 head -c 1 "$tmp/ready" | od -An -c)
	if [ -z "$ready" ]; then
		wait "$znsd_pid"
		echo "znsd did not start (status $?):" >&2
		sed 's/^/    /' "$tmp/znsd.log" >&2
		znsd_pid=
		exit 1
	fi
	port=$(head -1 "$tmp/port")
	port=${port##*:}
}

# stop_znsd: TERM; its exit status.
stop_znsd()
{
	local status

	kill -TERM "$znsd_pid"
	wait "$znsd_pid"
	status=$?
	znsd_pid=
	return $status
}

kill_znsd()
{
	[ -n "$znsd_pid" ] || return 0
	kill -KILL "$znsd_pid" 2>/dev/null
	wait "$znsd_pid" 2>/dev/null
	znsd_pid=
}

probe()
{
	"$ZNSPROBE" 127.0.0.1 "$port" "$nqn" "$@"
}
