# SPDX-License-Identifier: MIT
# docs/reliability.md and docs/testing.md name what there is: clauses, labels, tests. Their numbers
# are written by tests/reliability, which needs its two markers.
. "$(dirname "$0")/../functions.sh"
need_env SOURCE_DIR BUILD_DIR
tmpdir

page=$SOURCE_DIR/docs/reliability.md
labs=$("$SOURCE_DIR/tests/reliability" -L)
# Not ctest -N: it would overwrite the log of the run that this is part of.
find "$BUILD_DIR/tests" -name CTestTestfile.cmake -exec cat {} + >tests
grep -o 'LABELS "[^"]*"' tests | sed 's/LABELS "//; s/"//' | tr ';' '\n' | sort -u >labels
sed -nE 's/^add_test\((\[=\[)?([^] ]*).*/\2/p' tests | sort -u >names
[ -s labels ] && [ -s names ] || fail "no tests found in $BUILD_DIR"

it "has the eight clauses, each with a row of tests"
for d in 1 2 3 4 5 6 7 8; do
	[ "$(grep -c "^\* \*\*D$d " "$page")" = 1 ] || fail "D$d is not in the contract once"
	grep -q "^| D$d |" "$page" || fail "no row for D$d"
	mandoc -Tascii "$SOURCE_DIR/docs/man/znsd.8" | sed 's/.\x08//g' | grep -Eq "^ *D$d " ||
		fail "D$d is not in znsd(8)"
done

it "has its two markers, in order"
expect_equal "$(grep '^<!-- ' "$page" | tr '\n' '|')" \
	'<!-- tests/reliability writes from here -->|<!-- to here -->|'

it "names every laboratory"
grep -Ex 'crash|planted|fault|corrupt|cut|kill|repair' labels >"found"
grep -vxE 'unit|integration|fast|fairness|guest|slow|fuzz' labels >others
diff found others || fail "labels that are neither a laboratory nor known: add them here and to both pages"
while read -r label; do
	[[ $label =~ $labs ]] || fail "tests/reliability does not run $label"
	grep -q "ctest -L $label\`" "$page" || fail "\`ctest -L $label\` is not in docs/reliability.md"
done <found

it "and testing.md every label"
while read -r label; do
	grep -q "^| \`$label\` |" "$SOURCE_DIR/docs/testing.md" || fail "no row for $label in docs/testing.md"
done <labels

it "names tests that are there"
# Those of the sanitizers are others; planted bugs are not named as tests.
if [ -z "${SANITIZE:-}" ]; then
	sed '/^<!-- tests/,/^<!-- to/d' "$page" "$SOURCE_DIR/docs/testing.md" |
		grep -oE '`(crash|fault|corrupt|cut|repair|qcow2|zns|target|transport|integration|guest)_[a-z0-9_.]+`' |
		tr -d '`' | grep -vE '\.[ch]$|_test$|_lab|^qcow2_(flush|create)$|^zns_test' | sort -u >named
	[ -s named ] || fail "none is named"
	while read -r name; do
		grep -qxF "$name" names || fail "there is no test $name"
	done <named
fi

finish
