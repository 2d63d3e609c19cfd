#!/bin/bash
# floors.sh SOURCE BUILD: no file calls up. The objects tell who calls whom; BUILD/floors.txt, which CMake writes, tells
# on which floor each file stands. docs/tour.md must show the same floors, and the check must notice a wrong one.
set -euo pipefail
source=$1 build=$2
here=$(dirname "$0")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

symbols() { # ROOM FILE KIND SYMBOL
	local room archive
	while read -r room _ archive; do
		nm -gA "$archive" 2>/dev/null |
			sed -nE "s/^[^:]*:([A-Za-z0-9_]+)\.c\.o: *([0-9a-f]+)? *([A-Z]) ([A-Za-z0-9_]+)$/$room \1 \3 \4/p"
	done <"$build/rooms.txt"
}

check() { # FLOORS LEAST
	awk -v least="$2" -f "$here/floors.awk" "$build/rooms.txt" "$1" "$tmp/symbols"
}

symbols >"$tmp/symbols"
check "$build/floors.txt" 100

# Every source file of the rooms is on a floor.
while read -r room folder _; do
	for file in "$source/$folder"/*.c; do
		name=$(basename "$file" .c)
		[[ $name != main ]] || continue # a program's own file, above all rooms
		grep -q "^$room $name " "$tmp/symbols" || {
			echo "floors: $folder/$name.c is in no library" >&2
			exit 1
		}
	done
done <"$build/rooms.txt"

# docs/tour.md shows them.
sed -n '/^```floors$/,/^```$/p' "$source/docs/tour.md" | sed '1d;$d' >"$tmp/tour"
diff "$tmp/tour" "$build/floors.txt" || {
	echo "floors: < stands in docs/tour.md, > in CMake" >&2
	exit 1
}

# The check can fail: flush.c put on the ground floor calls up, and without its rooms the store calls strangers.
mkdir "$tmp/wrong"
sed -E '/^qcow2\/ /{s/ flush( |$)/\1/; s/\): /): flush /}' "$build/floors.txt" >"$tmp/wrong/floors.txt"
check "$tmp/wrong/floors.txt" 1 >"$tmp/said" && { echo "floors: a call upwards was not noticed" >&2; exit 1; }
grep -q 'qcow2/flush.c calls .*, which stands no lower' "$tmp/said"
sed -E '/^zns\/store\//s/\(.*\)/(zns)/' "$build/floors.txt" >"$tmp/wrong/floors.txt"
check "$tmp/wrong/floors.txt" 1 >"$tmp/said" && { echo "floors: a call into a strange room was not noticed" >&2; exit 1; }
grep -q 'zns_store_qcow2 does not use qcow2' "$tmp/said"
