#!/bin/bash
# SPDX-License-Identifier: MIT
# cmake --install puts everything where it belongs below the prefix, and it works there.
. "$(dirname "$0")/../functions.sh"
need cmake
need_env BUILD_DIR SOURCE_DIR
tmpdir

it "installs"
expect_status 0 env DESTDIR="$tmp/root" cmake --install "$BUILD_DIR"
# The prefix that was configured: /usr/local unless somebody chose another.
prefix=$tmp/root$(sed -n 's/^CMAKE_INSTALL_PREFIX:PATH=//p' "$BUILD_DIR/CMakeCache.txt")

it "installs programs, manual pages, completions, documents, the licence and units"
for file in bin/znsd bin/znsimg share/man/man1/znsimg.1 share/man/man8/znsd.8 \
	share/bash-completion/completions/{znsd,znsimg} share/zsh/site-functions/_{znsd,znsimg} \
	share/fish/vendor_completions.d/{znsd,znsimg}.fish share/doc/znsd/{README.md,LICENSE,docs/tour.md} \
	lib/systemd/system/{znsd,znsd@}.service; do
	[ -s "$prefix/$file" ] || fail "no $file"
done
[ "$(find "$tmp/root" -path '*/etc/default/znsd' | wc -l)" = 1 ] || fail "no etc/default/znsd"

it "installs nothing of the tests"
expect_equal "$(find "$prefix"/bin "$prefix"/lib -type f | wc -l)" 4 "files in bin and lib"

it "names the installed program in the units"
for unit in znsd znsd@; do
	program=$(sed -n 's/^ExecStart=\([^ ]*\) .*/\1/p' "$prefix/lib/systemd/system/$unit.service")
	[ -x "$tmp/root/$program" ] || fail "$unit.service starts $program"
	! grep -n '@[A-Z_]*@' "$prefix/lib/systemd/system/$unit.service" || fail "a variable is left"
done

it "installs programs that run, and documents whose links lead somewhere"
expect_status 0 "$prefix/bin/znsimg" create -f qcow2 -o zone.size=64M disk.qcow2 256M
expect_status 0 "$prefix/bin/znsd" --version
for file in $(grep -oE '\bdocs/[a-z]+\.md\b' "$prefix/share/doc/znsd/README.md" | sort -u); do
	[ -s "$prefix/share/doc/znsd/$file" ] || fail "README.md names $file"
done

finish
