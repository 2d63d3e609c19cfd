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

def ms: if . then . / 1000 else null end;

# Of one row: the values of KEY by KIND, in order of rounds; and the ratios of two kinds.
def values(kind; key): map(select(.kind == kind)) | sort_by(.round) | map(.[key]);
def mid(kind; key): values(kind; key) | median;
def ratios(a; b; key): [values(a; key), values(b; key)] | transpose | map(select(.[0] and .[1]) | .[0] / .[1]);
def has_kind(kind): any(.[]; .kind == kind);

def rate(kind): if has_kind(kind) | not then "" elif (.[0].row | test("^(64|128)k")) then
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
	(if mid("znsd"; "flush_p99_us") then (mid("znsd"; "flush_p50_us") | ms | short) + " / " +
		(mid("znsd"; "flush_p99_us") | ms | short) else "" end),
	rate("nbd") + (if has_kind("nbd") then " [" + (mid("nbd"; "target_s_mop") | short) + "]" else "" end),
	(ratios("znsd"; "nbd"; "iops") | range), rate("file") + rate("direct"),
	(ratios("znsd"; "file"; "iops") + ratios("znsd"; "direct"; "iops") | range)
];

def over(a; b): if a and b then a / b else null end;
def result: if . == null then "not measured" else fixed(2) end;
# One bar of a row: {row, text, is, met}; and beside a file, the floor's own ratio where even that is below the bar.
def verdict(name; is; bar; least): if bar then { row: .[0].row, is: is,
	text: (name + (if least then " at least " else " at most " end) + (bar | tostring)),
	met: (if is == null then false elif least then is >= bar else is <= bar end) } else empty end;
def beside_file(name; other; bar): (ratios("floor"; other; "iops") | median) as $floor |
	verdict("rate in " + name; ratios("znsd"; other; "iops") | median; bar; true) |
	if $floor and $floor < bar then .floor = $floor else . end;
def verdicts: (map(select(.kind == "want"))[0]) as $want |
	verdict("rate in the floor's"; ratios("znsd"; "floor"; "iops") | median; $want.floor; true),
	verdict("median latency in the floor's"; ratios("znsd"; "floor"; "p50_us") | median; $want.p50; false),
	verdict("rate in qemu-nbd's"; ratios("znsd"; "nbd"; "iops") | median; $want.nbd; true),
	beside_file("the plain file's"; "file"; $want.file),
	beside_file("O_DIRECT's"; "direct"; $want.direct),
	verdict("a Flush's p99, ms,"; mid("znsd"; "flush_p99_us") | ms; $want.flush_ms; false),
	verdict("the slowest append or reset, ms,";
		values("znsd"; "max_us") + values("znsd"; "reset_max_us") | max | ms; $want.worst_ms; false);

# Loops beside one. Two loops on two processors, with their initiators: what they would do, had each a processor of its own.
# What they share, locks above all, costs time. With a processor each (--cores): what they do.
def loops($rows): (map(select(.kind == "want"))[0]) as $want |
	($rows | map(select(any(.[]; .kind == "want" and .load == $want.load and .loops == 1)))[0]) as $one |
	if $want.loops == 1 or ($one | not) then empty
	elif $want.scale then verdict("rate in one loop's"; over(mid("znsd"; "iops"); $one | mid("znsd"; "iops")); $want.scale; true)
	else verdict("rate in one loop's, by processor time,";
		over($want.loops * ($one | mid("znsd"; "target_s_mop") // 0); mid("znsd"; "target_s_mop")); 1.6; true) end;

(reduce .[] as $r ([]; if any(.[]; .[0].row == $r.row) then map(if .[0].row == $r.row then . + [$r] else . end)
	else . + [[$r]] end)) as $rows |
"| load | floor | znsd | znsd / floor | by processor time | p50 us: floor / znsd | p99 us | CPU s/Mop: floor / znsd / initiator | busy %: znsd / initiator | limit | Flush ms: p50 / p99 | qemu-nbd [CPU s/Mop] | znsd / qemu-nbd | file | znsd / file |",
"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
($rows[] | "| " + (cells | join(" | ")) + " |"),
"",
[$rows[] | verdicts, loops($rows)] as $all | ($all | map(select(.met | not))) as $below |
"| load | what is wanted | is | met |", "| --- | --- | --- | --- |",
($all[] | "| \(.row) | \(.text) | \(.is | result) | \(if .met then "yes" else "**no**" end) |"),
"",
"\($all | length) bars, \($below | length) not met\(if $below == [] then "." else ":" end)",
($below[] | "* \(.row): \(.text), is \(.is | result)\(if .floor then " (the floor itself: \(.floor | fixed(2)))" else "" end)")
