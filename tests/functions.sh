# SPDX-License-Identifier: MIT
# What the shell tests share. Source it first:  . "$(dirname "$0")/../functions.sh"
#
# A test is a bash script. Each `it "does so"` starts a behaviour; `fail` reports and counts, and
# the script goes on; `finish` at the end gives the exit status. What is missing is a skip (77).
# Everything happens in $tmp, a directory that vanishes with the script.

set -u

tests_failed=0
current='(start)'
tmp=

# Gives $tmp, removed when the script ends, and makes it the working directory.
tmpdir()
{
	tmp=$(mktemp -d "${TMPDIR:-/tmp}/znsd-test.XXXXXX") || exit 1
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 130' INT TERM
	cd "$tmp" || exit 1
}

skip()
{
	echo "SKIP: $*"
	exit 77
}

# The same on a disk: Debian 13 has /tmp in memory, but not /var/tmp.
disk_tmpdir()
{
	[ "$(stat -f -c %T "${TMPDIR:-/tmp}")" != tmpfs ] || TMPDIR=/var/tmp
	tmpdir
	[ "$(stat -f -c %T .)" != tmpfs ] || skip "$tmp is in memory"
}

# need CMD...: skips the test where one of the commands is missing.
need()
{
	local cmd

	for cmd; do
		command -v "$cmd" >/dev/null || skip "needs $cmd"
	done
}

# need_env NAME...: skips the test when one of the programs was not built.
need_env()
{
	local name

	for name; do
		[ -n "${!name:-}" ] || skip "needs \$$name (run through ctest)"
	done
}

it()
{
	current=$*
}

fail()
{
	echo "FAIL: $current: $*" >&2
	tests_failed=$((tests_failed + 1))
}

# expect_status WANT CMD...: runs CMD, its output in $tmp/out and $tmp/err.
expect_status()
{
	local want=$1 got

	shift
	"$@" >"$tmp/out" 2>"$tmp/err"
	got=$?
	[ "$got" = "$want" ] && return 0
	fail "'$*' ended $got, not $want"
	sed 's/^/    stdout: /' "$tmp/out" | head -20 >&2
	sed 's/^/    stderr: /' "$tmp/err" | head -20 >&2
	return 1
}

# expect_err PATTERN / expect_out PATTERN: the last command said so (extended regular expression).
expect_err()
{
	grep -Eq -- "$1" "$tmp/err" && return 0
	fail "no /$1/ on stderr, but: $(head -3 "$tmp/err")"
	return 1
}

expect_out()
{
	grep -Eq -- "$1" "$tmp/out" && return 0
	fail "no /$1/ on stdout, but: $(head -3 "$tmp/out")"
	return 1
}

expect_equal()
{
	[ "$1" = "$2" ] && return 0
	fail "got '$1', want '$2'${3:+ ($3)}"
	return 1
}

# poke FILE OFFSET HEXBYTES: overwrites bytes in place.
poke()
{
	# shellcheck disable=SC2059
	printf "$(sed 's/../\\x&/g' <<<"$3")" |
		dd of="$1" bs=1 seek="$(($2))" conv=notrunc status=none
}

# peek FILE OFFSET LENGTH: hex digits.
peek()
{
	dd if="$1" bs=1 skip="$(($2))" count="$(($3))" status=none | od -An -v -tx1 | tr -d ' \n'
}

# be64 N: N as 16 hex digits, for poke.
be64()
{
	printf '%016x' "$1"
}

# clear_zoned_bit FILE: takes incompatible feature bit 5 out, so that stock QEMU opens the image.
# The bit is 0x20 in byte 79 of the header.
clear_zoned_bit()
{
	poke "$1" 79 "$(printf '%02x' $((0x$(peek "$1" 79 1) & ~0x20)))"
}

finish()
{
	[ "$tests_failed" = 0 ] || echo "$tests_failed failed" >&2
	[ "$tests_failed" = 0 ]
	exit
}
