# SPDX-License-Identifier: MIT
# The manual pages: clean mdoc, and what the programs' --help names is in them.
. "$(dirname "$0")/../functions.sh"
need mandoc
need_env SOURCE_DIR
tmpdir

it "is clean mdoc"
for page in "$SOURCE_DIR"/docs/man/*.[1-8]; do
	# Pages that are not installed here are no fault of ours.
	mandoc -Tlint "$page" 2>/dev/null | grep -v 'referenced manual not found' >lint
	[ ! -s lint ] || fail "${page##*/}: $(head -5 lint)"
done

it "names every option of znsimg"
if [ -n "${ZNSIMG:-}" ]; then
	mandoc -Tascii "$SOURCE_DIR/docs/man/znsimg.1" | sed 's/.\x08//g' >page
	for verb in create info check resize zones; do
		expect_status 0 "$ZNSIMG" $verb --help
		# The option columns: two blanks, then "-f, --format FORMAT", then the explanation.
		options=$(sed -n 's/^  \( *-.\{26\}\).*/\1/p' out | grep -oE -- '--?[a-zA-Z][a-zA-Z-]*')
		[ "$(wc -l <<<"$options")" -ge 6 ] || fail "$verb: only $options"
		for option in $options; do
			grep -Eq -- "(^|[[ ,])$option([], =]|$)" page || fail "$verb $option is not in the page"
		done
	done
	"$ZNSIMG" create -o help | sed -n 's/^  \([a-z0-9_.]*\)=.*/\1/p' >names
	[ "$(wc -l <names)" -ge 15 ] || fail "only $(wc -l <names) -o options"
	while read -r name; do
		grep -Eq "^ +$name( |$)" page || fail "-o $name is not in the page"
	done <names
fi

it "names every option of znsd, and no other"
if [ -n "${ZNSD:-}" ]; then
	mandoc -Tascii "$SOURCE_DIR/docs/man/znsd.8" | sed "s/.\x08//g" >page
	expect_status 0 "$ZNSD" --help
	grep -oE -- "--[a-z-]+" out | sort -u >told
	sed -n "/^DESCRIPTION/,/^ENVIRONMENT/p" page | grep -oE -- "--[a-z-]+" | sort -u >written
	[ "$(wc -l <told)" -ge 10 ] || fail "only $(wc -l <told) options"
	diff told written || fail "--help (<) and the page (>) differ"
fi

finish
