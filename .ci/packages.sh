# What Debian 12 or 13 must have installed, and how to get it: sourced by ./quickstart,
# ./runtests and tests/bench/run.

BUILD_PACKAGES="gcc libc6-dev cmake ninja-build pkg-config libnvme-dev libssl-dev libevent-dev
	zlib1g-dev libzstd-dev libisal-dev libjson-c-dev liburing-dev"
TEST_PACKAGES="clang valgrind git libclang-rt-dev libcmocka-dev qemu-utils jq mandoc procps iproute2
	util-linux strace systemd fish zsh"
BENCH_PACKAGES="fio qemu-utils jq util-linux" # tests/bench/run
BENCH_DISK_PACKAGES="mount e2fsprogs xfsprogs btrfs-progs" # and its rows on file systems
BARE_PACKAGES="git mmdebstrap systemd-container" # tests/bare
ROOT_PACKAGES="mmdebstrap systemd-container lintian buildah golang-github-containers-common" # tests/package

# install_missing PACKAGE... : installs those that are not there; says so when it may not.
install_missing()
{
	local missing=() package sudo='' log
	for package; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
			missing+=("$package")
	done
	((${#missing[@]})) || return 0
	if ((EUID != 0)); then
		sudo=$(command -v sudo) || {
			echo "$0: please install, as root: apt-get install ${missing[*]}" >&2
			return 1
		}
	fi
	echo "$0: installing ${missing[*]}" >&2
	log=$(mktemp)
	{
		$sudo apt-get -qq update &&
			$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
				install "${missing[@]}"
	} >"$log" 2>&1 || {
		cat "$log" >&2
		rm "$log"
		return 1
	}
	rm "$log"
}
