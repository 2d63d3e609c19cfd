# SPDX-License-Identifier: MIT
# Bare roots of Debian, made by mmdebstrap and entered by systemd-nspawn; for root. Source it with a
# folder of yours in $tmp. The roots as they were made are kept in ~/.cache/znsd-roots for a week.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/znsd-roots

# sources SUITE: a file with the machine's own sources of packages, for SUITE.
sources()
{
	local own file=/etc/apt/sources.list.d/debian.sources

	[ -s "$file" ] || file=/etc/apt/sources.list
	# shellcheck disable=SC1091
	own=$(. /etc/os-release && echo "$VERSION_CODENAME")
	sed "s/\b$own\b/$1/g" "$file" >"$tmp/$1.${file##*.}"
	echo "$tmp/$1.${file##*.}"
}

# bare_root SUITE DIR: a root of Debian without anything that is not essential, but apt.
bare_root()
{
	local tar=$cache/$1.tar

	mkdir -p "$cache"
	if [ -z "$(find "$tar" -mtime -7 2>/dev/null)" ]; then
		echo "== $1: a bare root"
		mmdebstrap --quiet --format=tar --variant=apt "$1" "$tar.new" "$(sources "$1")"
		mv "$tar.new" "$tar"
	fi
	mkdir "$2"
	tar xf "$tar" -C "$2"
}

# inside DIR COMMAND...: runs it in the root DIR.
inside()
{
	local dir=$1

	shift
	systemd-nspawn --quiet --register=no --keep-unit --resolv-conf=copy-host --timezone=off --pipe -D "$dir" \
		--setenv=DEBIAN_FRONTEND=noninteractive --setenv=LC_ALL=C.UTF-8 "$@" \
		2> >(grep -v 'Attempted to remove disk\|delaying package conf' >&2)
}
