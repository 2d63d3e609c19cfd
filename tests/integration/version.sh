#!/bin/bash
# SPDX-License-Identifier: MIT
# --version tells which commit was built: packaging/version.cmake, on checkouts made here.
. "$(dirname "$0")/../functions.sh"
need cmake git
need_env SOURCE_DIR ZNSD ZNSIMG
tmpdir
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
unset GIT_DIR GIT_WORK_TREE

# told SOURCE [PACKAGE]: the version that a build of SOURCE tells.
told()
{
	cmake -D VERSION=1.2.3 -D "PACKAGE=${2-}" -D SOURCE="$tmp/$1" -D OUTPUT="$tmp/version.c" \
		-P "$SOURCE_DIR/packaging/version.cmake" || fail "version.cmake failed"
	sed -n 's/^const char znsd_version\[\] = "\(.*\)";$/\1/p' "$tmp/version.c"
}

commit()
{
	git -C checkout add -A
	git -C checkout -c user.name=t -c user.email=t@example.org commit -qm "$1"
}

it "tells the project's version alone where there is no checkout"
mkdir tarball
expect_equal "$(told tarball)" 1.2.3

it "tells the commit of a checkout"
git init -q checkout
echo 1 >checkout/file
commit one
head=$(git -C checkout rev-parse --short HEAD)
expect_equal "$(told checkout)" "1.2.3 ($head)"

it "writes nothing while nothing changes"
touch -d '2001-01-01' version.c
told checkout >/dev/null
[ "$(date -r version.c +%Y)" = 2001 ] || fail "version.c was written again"

it "tells changes that are not committed"
echo 2 >checkout/file
expect_equal "$(told checkout)" "1.2.3 ($head-dirty)"

it "follows HEAD, and names the last tag"
commit two
expect_equal "$(told checkout)" "1.2.3 ($(git -C checkout rev-parse --short HEAD))"
git -C checkout -c user.name=t -c user.email=t@example.org tag -am v1.2.3 v1.2.3
expect_equal "$(told checkout)" "1.2.3 (v1.2.3)"

it "is not taken in by a checkout around it"
mkdir checkout/vendor
expect_equal "$(told checkout/vendor)" 1.2.3

it "leaves the last word to a packager"
expect_equal "$(told checkout 1.2.3-4)" 1.2.3-4

it "tells the same of both programs"
expect_status 0 "$ZNSD" --version
expect_out '^znsd [0-9]+\.[0-9]+\.[0-9]+'
version=$(sed 's/^znsd //' out)
expect_status 0 "$ZNSIMG" --version
expect_equal "$(cat out)" "znsimg $version"

finish
