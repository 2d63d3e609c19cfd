#!/bin/bash
# planted.sh SOURCE-FOLDER LIST: every plant() in the engine is in the list, every name of the list in the engine.
set -euo pipefail
names() { grep -ho 'plant([a-z_0-9]*)' "$1"/*.c | sed 's/plant(\(.*\))/\1/' | sort -u; }
listed() { sed -n 's/^!\?\([a-z][a-z_0-9]*\) .*/\1/p' "$1" | sort -u; }
diff <(names "$1") <(listed "$2") || {
	echo "planted.sh: < stands in the engine and not in planted.txt, > in planted.txt and not in the engine" >&2
	exit 1
}
