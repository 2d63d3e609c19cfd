#!/bin/bash
# planted.sh list SOURCE-FOLDER LIST: every plant() in the engine is in the list, every name of the list in the engine.
# planted.sh run BUG TEST: the test, of an engine with the bug, must fail: by a check of its own, not by a crash. Tells
# which clauses its messages name, in a tally like that of crash_lab_planted.
set -euo pipefail

list() {
	names() { grep -rho --include='*.c' 'plant([a-z_0-9]*)' "$1" | sed 's/plant(\(.*\))/\1/' | sort -u; }
	listed() { sed -n 's/^!\?\([a-z][a-z_0-9]*\) .*/\1/p' "$1" | sort -u; }
	diff <(names "$1") <(listed "$2") || {
		echo "planted.sh: < stands in the engine and not in planted.txt, > in planted.txt and not in the engine" >&2
		exit 1
	}
}

run() {
	local status=0 clauses
	out=$(mktemp) # not local: it is removed when the script ends
	trap 'rm -f "$out"' EXIT
	TIMEFORMAT=%U
	cpu=$({ time PLANT=$1 "$2" >"$out" 2>&1; } 2>&1) || status=$?
	tail -n 40 "$out"
	((status < 128)) || { echo "planted.sh: the test has crashed: status $status" >&2 && exit 1; }
	clauses=$({ grep -o 'D[1-8]:' "$out" || :; } | sort -u | tr -d : | paste -sd+)
	echo "tally: planted bug=$1 caught=$((status != 0)) clauses=${clauses:--} cpu=$cpu"
	((status)) || { echo "$1 was NOT caught" && exit 1; }
}

"$@"
