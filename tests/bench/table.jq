# SPDX-License-Identifier: MIT
# The lines of results.json (tests/bench/run) as a table, and what the project wants beside what is.
# A number is the median of the rounds. A ratio is the median of the rounds' own ratios, as what a round
# compares was measured within seconds; behind it stand the least and the greatest.

def median: sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor]
	else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def digits: (. + 0.5 | floor | tostring) | [while(length > 0; .[:-3]) | .[-3:]] | reverse | join(",");
def fixed(n): if . == null then "" else
	(. * pow(10; n) + 0.5 | floor | tostring) as $s |
	if n == 0 then $s else ("0" * ([n + 1 - ($s | length), 0] | max) // "") + $s | .[:-n] + "." + .[-n:] end end;
def short: if . == null then "" elif . >= 100 then fixed(0) elif . >= 10 then fixed(1) else fixed(2) end;

# Of one row: the values of KEY by KIND, in order of rounds; and the ratios of two kinds.
def values(kind; key): map(select(.kind == kind)) | sort_by(.round) | map(.[key]);
def mid(kind; key): values(kind; key) | median;
def ratios(a; b; key): [values(a; key), values(b; key)] | transpose | map(select(.[0] and .[1]) | .[0] / .[1]);
def has_kind(kind): any(.[]; .kind == kind);

def rate(kind): if has_kind(kind) | not then "" elif (.[0].row | startswith("128k")) then
	(mid(kind; "mb_s") | digits) + " MB/s" else mid(kind; "iops") | digits end;
def range: if length == 0 then "" else (median | fixed(2)) + " (" + (min | fixed(2)) + "-" + (max | fixed(2)) + ")" end;
def pair(key): (mid("floor"; key) | short) + " / " + (mid("znsd"; key) | short);
# Who had no time left.
def limit: [(select(mid("znsd"; "target_cpu") >= 0.9 and (.[0].row | contains("busy drive") | not)) | "znsd"),
	(select(mid("znsd"; "initiator_cpu") >= 0.9 and (.[0].row | contains("polling") | not)) | "initiator")] |
	if length == 0 then "waiting" else join(" and ") end;
def percent: if . == null then "" else . * 100 | fixed(0) end;

def cells: [
	.[0].row, rate("floor"), rate("znsd"), (ratios("znsd"; "floor"; "iops") | range),
	(ratios("floor"; "znsd"; "target_s_mop") | range), pair("p50_us"), pair("p99_us"),
	(mid("floor"; "target_s_mop") | short) + " / " + (mid("znsd"; "target_s_mop") | short) + " / " +
		(mid("znsd"; "initiator_s_mop") | short),
	(mid("znsd"; "target_cpu") | percent) + " / " + (mid("znsd"; "initiator_cpu") | percent),
	limit,
	rate("nbd") + (if has_kind("nbd") then " [" + (mid("nbd"; "target_s_mop") | short) + "]" else "" end),
	(ratios("znsd"; "nbd"; "iops") | range), rate("file")
];

def verdict(name; is; bar; least): if bar then
	"| " + .[0].row + " | " + name + (if least then " at least " else " at most " end) + (bar | tostring) + " | " +
	(is | fixed(2)) + " | " + (if (least and is >= bar) or (least | not) and is <= bar then "yes" else "**no**" end) + " |"
	else empty end;
def verdicts: (map(select(.kind == "want"))[0]) as $want |
	verdict("rate in the floor's"; ratios("znsd"; "floor"; "iops") | median; $want.floor; true),
	verdict("median latency in the floor's"; ratios("znsd"; "floor"; "p50_us") | median; $want.p50; false),
	verdict("rate in qemu-nbd's"; ratios("znsd"; "nbd"; "iops") | median; $want.nbd; true);

# Two loops beside one: what they would do, had each a processor of its own. What they share, locks above all, costs time.
def loops($rows): ($rows | map(select(.[0].row | endswith(", 2 loops")))[0]) as $two | if $two then
	($two[0].row | rtrimstr(", 2 loops")) as $name | ($rows | map(select(.[0].row == $name))[0]) as $one |
	if $one then ($two | verdict("rate in one loop's, by processor time,";
		2 * ($one | mid("znsd"; "target_s_mop")) / mid("znsd"; "target_s_mop"); 1.6; true)) else empty end
	else empty end;

(reduce .[] as $r ([]; if any(.[]; .[0].row == $r.row) then map(if .[0].row == $r.row then . + [$r] else . end)
	else . + [[$r]] end)) as $rows |
"| load | floor | znsd | znsd / floor | by processor time | p50 us: floor / znsd | p99 us | CPU s/Mop: floor / znsd / initiator | busy %: znsd / initiator | limit | qemu-nbd [CPU s/Mop] | znsd / qemu-nbd | file |",
"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
($rows[] | "| " + (cells | join(" | ")) + " |"),
"",
"| load | what is wanted | is | met |", "| --- | --- | --- | --- |",
($rows[] | verdicts), loops($rows)
