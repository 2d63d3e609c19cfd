# Reads floors.txt ("FOLDER/ (ROOM...): FILE... | FILE+FILE... | ..."), rooms.txt ("ROOM FOLDER ARCHIVE"), then the
# symbols of all rooms ("ROOM FILE KIND SYMBOL"). Prints each call that goes up or sideways, or into a room that is not used.

FILENAME ~ /rooms.txt$/ { folder[$1] = $2; room[$2 "/"] = $1; next }

FILENAME ~ /floors.txt$/ {
	line[++lines] = $0
	next
}

FNR == 1 && !parsed { parse() }

{
	file = $1 "/" $2
	if (!(file in floor))
		complain(file ".c is on no floor")
	else if ($3 == "U")
		calls[file SUBSEP $4]
	else if ($3 ~ /[TDBRC]/)
		home[$4] = file
}

function parse(    i, n, k, m, names, parts, pair, at, here) {
	parsed = 1
	for (i = 1; i <= lines; i++) {
		at = index(line[i], "): ")
		split(substr(line[i], 1, at), parts, " ")
		here = room[parts[1]]
		n = split(substr(line[i], index(line[i], "(") + 1, at - index(line[i], "(") - 1), names, " ")
		for (k = 1; k <= n; k++) {
			uses[here, names[k]]
			for (m in folder) # what is used there is used here
				if ((names[k], m) in uses)
					uses[here, m]
		}
		n = split(substr(line[i], at + 3), names, " ")
		m = 0
		for (k = 1; k <= n; k++) {
			if (names[k] == "|") {
				m++
				continue
			}
			if (split(names[k], pair, "+") > 2)
				complain(names[k] ": at most two files may call each other")
			floor[here "/" pair[1]] = m
			if (2 in pair) {
				floor[here "/" pair[2]] = m
				paired[here "/" pair[1], here "/" pair[2]]
				paired[here "/" pair[2], here "/" pair[1]]
			}
			delete pair
		}
	}
}

function complain(text) {
	print "floors: " text
	bad = 1
}

END {
	for (call in calls) {
		split(call, c, SUBSEP)
		if (!(c[2] in home) || home[c[2]] == c[1])
			continue
		split(c[1], from, "/")
		split(home[c[2]], to, "/")
		seen++
		if (from[1] != to[1] && !((from[1], to[1]) in uses))
			complain(c[1] ".c calls " c[2] "() of " home[c[2]] ".c: " from[1] " does not use " to[1])
		if (from[1] == to[1] && floor[c[1]] <= floor[home[c[2]]] && !((c[1], home[c[2]]) in paired))
			complain(c[1] ".c calls " c[2] "() of " home[c[2]] ".c, which stands no lower")
	}
	if (seen < least)
		complain("only " seen + 0 " calls between files were found")
	exit bad
}
