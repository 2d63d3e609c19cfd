# SPDX-License-Identifier: MIT
# znsimg zones: states from the recorded write pointers, in every format.
. "$(dirname "$0")/../functions.sh"
need jq
need_env ZNSIMG
tmpdir

# Zone 0 is conventional, 1 empty, 2 partly written, 3 full at its capacity, 4 full at its end, 5 short.
"$ZNSIMG" create -q -o zone.size=64M,zone.capacity=48M,zone.conventional_zones=1 z.qcow2 352M 2>/dev/null
for pointer in 2:$((128 * 1048576 + 8192)) 3:$((240 * 1048576)) 4:$((320 * 1048576)); do
	poke z.qcow2 $((0x30000 + 8 * ${pointer%:*})) "$(be64 "${pointer#*:}")"
done

it "prints nvme-cli's JSON, in LBAs of 4096"
expect_status 0 "$ZNSIMG" zones --format=json z.qcow2
expect_equal "$(jq -c '[.nr_zones, (.zone_list | length)]' out)" '[6,6]'
expect_equal "$(jq -c '.zone_list[2]' out)" \
	'{"slba":32768,"wp":32770,"cap":12288,"state":"CLOSED","type":"SEQWRITE_REQ","attrs":0,"attrs_info":0}'
expect_equal "$(jq -c '[.zone_list[].state]' out)" \
	'["NOT_WP","EMPTY","CLOSED","FULL","FULL","EMPTY"]'
expect_equal "$(jq -c '[.zone_list[] | .type] | unique' out)" '["CONVENTIONAL","SEQWRITE_REQ"]'
grep -q '"wp": 18446744073709551615' out || fail "a full zone shows a write pointer"
expect_equal "$(jq -c '.zone_list[5] | [.slba, .wp, .cap]' out)" '[81920,81920,8192]' "short zone"

it "counts in LBAs of 512 when asked"
expect_equal "$("$ZNSIMG" zones --output=json --lba=512 z.qcow2 | jq -c '.zone_list[2] | [.slba, .wp, .cap]')" \
	'[262144,262160,98304]'

it "prints util-linux's lines"
expect_status 0 "$ZNSIMG" zones --format=blkzone z.qcow2
expect_equal "$(cat out)" "\
  start: 0x000000000, len 0x020000, cap 0x018000, wptr 0x000000 reset:0 non-seq:0, zcond: 0(nw) [type: 1(CONVENTIONAL)]
  start: 0x000020000, len 0x020000, cap 0x018000, wptr 0x000000 reset:0 non-seq:0, zcond: 1(em) [type: 2(SEQ_WRITE_REQUIRED)]
  start: 0x000040000, len 0x020000, cap 0x018000, wptr 0x000010 reset:0 non-seq:0, zcond: 4(cl) [type: 2(SEQ_WRITE_REQUIRED)]
  start: 0x000060000, len 0x020000, cap 0x018000, wptr 0x020000 reset:0 non-seq:0, zcond:14(fu) [type: 2(SEQ_WRITE_REQUIRED)]
  start: 0x000080000, len 0x020000, cap 0x018000, wptr 0x020000 reset:0 non-seq:0, zcond:14(fu) [type: 2(SEQ_WRITE_REQUIRED)]
  start: 0x0000a0000, len 0x010000, cap 0x010000, wptr 0x000000 reset:0 non-seq:0, zcond: 1(em) [type: 2(SEQ_WRITE_REQUIRED)]"

it "prints CSV"
expect_status 0 "$ZNSIMG" zones --format=csv z.qcow2
expect_equal "$(sed -n '1p;4p' out)" "\
zone,slba,wp,cap,state,type,attrs
2,32768,32770,12288,CLOSED,SEQWRITE_REQ,0"
expect_equal "$(wc -l <out)" 7

it "prints a table"
expect_status 0 "$ZNSIMG" zones z.qcow2
expect_out '^6 zones of 64 MiB, capacity 48 MiB, 1 conventional; .* LBAs of 4096 bytes$'
expect_out '^ +2  CLOSED +SEQWRITE_REQ +0x8000 +0x8002 +0x3000 +0%$'
expect_out '^ +3  FULL +SEQWRITE_REQ +0xc000 +- +0x3000 +100%$'

it "filters by state"
expect_equal "$("$ZNSIMG" zones --format=csv z.qcow2 fu | cut -d, -f1 | tr '\n' ' ')" "zone 3 4 "
expect_equal "$("$ZNSIMG" zones --format=csv nw cl z.qcow2 | cut -d, -f1 | tr '\n' ' ')" "zone 0 2 "
expect_equal "$("$ZNSIMG" zones --format=json z.qcow2 em | jq -c '[.nr_zones, .zone_list[].slba]')" \
	'[2,16384,81920]'
expect_equal "$("$ZNSIMG" zones --format=json z.qcow2 oi oe ro ol | jq -c .)" '{"nr_zones":0,"zone_list":[]}'

it "falls back to 512 where 4096 does not divide the capacity"
"$ZNSIMG" create -q -o zone.size=1M,zone.capacity=1000k odd.qcow2 4M
"$ZNSIMG" create -q -o zone.size=1M,zone.capacity=999k odd.qcow2 4M
expect_equal "$("$ZNSIMG" zones --format=json odd.qcow2 | jq '.zone_list[1].slba')" 2048
expect_status 1 "$ZNSIMG" zones --lba=4096 odd.qcow2
expect_err 'use --lba=512'

it "fails with a sentence"
"$ZNSIMG" create -q plain.qcow2 1M
expect_status 1 "$ZNSIMG" zones plain.qcow2
expect_err 'plain.qcow2: not a zoned image'
expect_status 1 "$ZNSIMG" zones z.qcow2 xx
expect_err "'xx' is no filter"
expect_status 1 "$ZNSIMG" zones --format=xml z.qcow2
expect_err "'blkzone', not 'xml'"
expect_status 1 "$ZNSIMG" zones --lba=1024 z.qcow2
expect_status 1 "$ZNSIMG" zones em
expect_err 'needs a file name'

it "prints a million zones in one document"
"$ZNSIMG" create -q -o zone.size=1M big.qcow2 1T
expect_equal "$("$ZNSIMG" zones --format=json big.qcow2 | grep -c '"slba"')" 1048576
expect_equal "$("$ZNSIMG" zones --format=csv big.qcow2 | tail -1)" \
	1048575,268435200,268435200,256,EMPTY,SEQWRITE_REQ,0

finish
