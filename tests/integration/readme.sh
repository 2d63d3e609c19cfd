#!/bin/bash
# SPDX-License-Identifier: MIT
# The commands of README.md work as they stand: its "sh" blocks line by line, here. What it tells
# the host to type ("sh host") a guest executes: tests/guest/scenarios/readme.sh.
. "$(dirname "$0")/../functions.sh"
need_env ZNSD ZNSIMG SOURCE_DIR
tmpdir

PATH=$(dirname "$ZNSD"):$PATH
n=0
while IFS= read -r line; do
	n=$((n + 1))
	it "runs: $line"
	expect_status 0 timeout 60 bash -c "$line"
done < <(sed -n '/^```sh$/,/^```$/{/^```/d;p}' "$SOURCE_DIR/README.md")

it "has commands to run"
[ "$n" -ge 5 ] || fail "only $n"

it "names the scripts that are there"
for script in $(grep -oP '(?<!\.)\./[a-z]+' "$SOURCE_DIR/README.md" | sort -u); do
	[ -x "$SOURCE_DIR/$script" ] || fail "$script"
done

it "names files that are there"
for file in $(grep -oE '\b(docs/[a-z./0-9]+|[A-Z]+\.md)\b' "$SOURCE_DIR/README.md" | sort -u); do
	[ -e "$SOURCE_DIR/${file%.}" ] || fail "$file"
done

finish
