#!/bin/bash
# SPDX-License-Identifier: MIT
# What bash, zsh and fish offer after znsd and znsimg: what --help names, no more and no less.
. "$(dirname "$0")/../functions.sh"
need_env ZNSD ZNSIMG BUILD_DIR
tmpdir
scripts=$BUILD_DIR/packaging/completions
PATH=$(dirname "$ZNSD"):$PATH
touch disk.qcow2

# offers LINE: what bash offers at the end of LINE, sorted, on one line.
offers()
{
	# shellcheck disable=SC2016
	bash --norc -c '
		. "$1/${2%% *}" || exit
		COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDBREAKS=$'\'' \t\n"'\'\''><=;|&(:'\''
		"_${2%% *}"
		printf "%s\n" "${COMPREPLY[@]}"' - "$scripts/bash" "$1" 2>"$tmp/err" | sort | xargs
	[ ! -s "$tmp/err" ] || fail "'$1': $(head -3 "$tmp/err")"
}

# told FILE: the options that a help names in its left column, as offers() prints them.
told()
{
	sed -n 's/^  \( *-.\{26\}\).*/\1/p' "$1" | grep -oE -- '--?[a-zA-Z][a-zA-Z-]*' | sort | xargs
}

expect_offers()
{
	expect_equal "$(offers "$1")" "$2" "$1"
}

it "offers in bash the verbs"
expect_status 0 znsimg --help
verbs=$(sed -n 's/^  \([a-z]*\) .*/\1/p' out | xargs)
expect_equal "$(wc -w <<<"$verbs")" 5
expect_offers "znsimg " "$(tr ' ' '\n' <<<"$verbs --help --version" | sort | xargs)"
expect_offers "znsimg re" resize

it "offers in bash the options of each verb, as its --help has them"
for verb in $verbs; do
	expect_status 0 znsimg "$verb" --help
	expect_offers "znsimg $verb -" "$(told out)"
done
expect_offers "znsimg check --d" --discard-shadow
expect_offers "znsimg check -q --rep" --repair

it "offers in bash the options of znsd"
expect_status 0 znsd --help
expect_offers "znsd -" "$(told out)"
[ "$(told out | wc -w)" -ge 14 ] || fail "--help has only: $(told out)"
expect_offers "znsd disk.qcow2 --cac" --cache

it "offers in bash what the argument of an option may be"
expect_offers "znsd --cache " "auto none unsafe writeback writethrough"
expect_offers "znsd --cache=write" "writeback writethrough"
expect_offers "znsd --log-level d" debug
expect_offers "znsimg check -r " "all leaks"
expect_offers "znsimg zones --format " "blkzone csv json table"
expect_offers "znsimg zones --lba=" "4096 512"
expect_offers "znsimg info --output=j" json
expect_offers "znsimg create -f " qcow2

it "offers in bash the keys of -o, as '-o help' has them, and their values"
expect_status 0 znsimg create -o help
keys=$(sed -n 's/^  \([a-z0-9_.]*=\).*/\1/p' out | sort | xargs)
[ "$(wc -w <<<"$keys")" -ge 15 ] || fail "only $keys"
expect_offers "znsimg create -o " "$keys"
expect_offers "znsimg create --options " "$keys"
expect_offers "znsimg create -o zone.mo" zone.mode=
expect_offers "znsimg create -o zone.mode=" "host-managed none"
# readline replaces what is behind the last "=" alone.
expect_offers "znsimg create -o size=4G,zone.la" 4G,zone.layout=
expect_offers "znsimg create -o size=4G,zone.layout=l" latest
expect_offers "znsimg create --options=zone.mode=h" host-managed

it "offers in bash the options of an image"
expect_offers "znsd disk.qcow2," "disk.qcow2,cache= disk.qcow2,lba= disk.qcow2,nqn= disk.qcow2,nsid= disk.qcow2,ro"
expect_offers "znsd -l 127.0.0.1:0 a.qcow2 disk.qcow2,ro,lb" disk.qcow2,ro,lba=
expect_offers "znsd disk.qcow2,lba=" "4096 512"

it "offers in bash filters behind the image, and leaves files and anything else alone"
expect_offers "znsimg zones disk.qcow2 " "cl em fu nw oe oi ol ro"
expect_offers "znsimg zones disk.qcow2 em f" fu
expect_offers "znsimg zones dis" ""
expect_offers "znsimg create disk.qcow2 " ""
expect_offers "znsd --threads " auto
expect_offers "znsd --run " ""

it "completes what is typed into bash"
# A terminal, so that readline does it. Each line ends with a word that shows where it ended.
cat >rc <<-END
	PS1='> '
	. $scripts/bash/znsd
	. $scripts/bash/znsimg
	znsd() { printf 'ran:%s:\n' "znsd \$*"; }
	znsimg() { printf 'ran:%s:\n' "znsimg \$*"; }
END
if command -v script >/dev/null; then
	{
		printf 'znsimg cre\t-o zone.mo\thost\t,zone.lay\tv\t dis\tnew\n'
		printf 'znsd --cac\twriteb\t dis\t\n'
		printf 'znsimg zones --form\tcs\tdis\tfu\t\n'
		printf 'exit\n'
	} | timeout 20 script -qec "bash --noprofile --rcfile rc -i" /dev/null 2>&1 |
		tr -d '\r\a' | grep -o 'ran:.*:$' >typed
	expect_equal "$(sed -n 1p typed)" "ran:znsimg create -o zone.mode=host-managed,zone.layout=v11 disk.qcow2 new:"
	expect_equal "$(sed -n 2p typed)" "ran:znsd --cache writeback disk.qcow2:"
	expect_equal "$(sed -n 3p typed)" "ran:znsimg zones --format csv disk.qcow2 fu:"
else
	echo "not here: script (package bsdutils)"
fi

it "completes in fish"
if command -v fish >/dev/null; then
	# Like offers(), without the explanations.
	offers_fish()
	{
		HOME=$tmp XDG_CONFIG_HOME=$tmp XDG_DATA_HOME=$tmp fish --no-config -c \
			'for f in $argv[1]/*.fish; source $f; end; complete -C $argv[2]' \
			"$scripts/fish" "$1" | cut -f 1 | sort | xargs
	}
	options_fish()
	{
		{ offers_fish "$1-"; offers_fish "$1--"; } | tr ' ' '\n' | grep ^- | sort -u | xargs
	}
	expect_equal "$(offers_fish "znsimg ")" "$(tr ' ' '\n' <<<"$verbs" | sort | xargs)"
	for verb in $verbs; do
		expect_status 0 znsimg "$verb" --help
		expect_equal "$(options_fish "znsimg $verb ")" "$(told out)" "$verb"
	done
	expect_status 0 znsd --help
	expect_equal "$(options_fish "znsd ")" "$(told out)" znsd
	expect_equal "$(offers_fish "znsimg create -o ")" "$keys"
	expect_equal "$(offers_fish "znsimg create -o size=4G,zone.mode=")" \
		"size=4G,zone.mode=host-managed size=4G,zone.mode=none"
	expect_equal "$(offers_fish "znsimg zones --format ")" "blkzone csv json table"
	expect_equal "$(offers_fish "znsd disk.qcow2,lba=")" "disk.qcow2,lba=4096 disk.qcow2,lba=512"
	expect_equal "$(offers_fish "znsd --cache ")" "auto none unsafe writeback writethrough"
else
	echo "not here: fish"
fi

it "completes in zsh"
if command -v zsh >/dev/null; then
	# What is typed into an interactive zsh, as with bash above.
	mkdir zdir
	cat >zdir/.zshrc <<-END
		PS1='> '
		unsetopt beep
		fpath=($scripts/zsh \$fpath)
		autoload -U compinit
		compinit -u -D
		znsd() { print -r "ran:znsd \$*:" }
		znsimg() { print -r "ran:znsimg \$*:" }
	END
	cat >drive.zsh <<-'END'
		zmodload zsh/zpty
		zpty shell "TERM=dumb ZDOTDIR=$1 zsh -i"
		# The prompt comes before anything may be typed.
		zpty -r -m shell all '*> *'
		while IFS= read -r line; do
			zpty -w -n shell "${(g::)line}"
			zpty -r -m shell answer '*ran:*:*'
			print -r -- "$answer"
		done
		zpty -d shell
	END
	{
		echo 'znsimg cre\t-o zone.mo\thost\t dis\tnew\n'
		echo 'znsimg create -o size=4G,zone.lay\tlat\t disk.qcow2\n'
		echo 'znsd --cac\twriteb\t disk.qcow2,lb\t51\t\n'
		echo 'znsimg zones --form\tcs\tdis\tfu\t\n'
	} | timeout 60 zsh -f drive.zsh "$tmp/zdir" 2>&1 | tr -d '\r' | grep -ao 'ran:.*:$' >typed
	expect_equal "$(sed -n 1p typed)" "ran:znsimg create -o zone.mode=host-managed disk.qcow2 new:"
	expect_equal "$(sed -n 2p typed)" "ran:znsimg create -o size=4G,zone.layout=latest disk.qcow2:"
	expect_equal "$(sed -n 3p typed)" "ran:znsd --cache=writeback disk.qcow2,lba=512:"
	expect_equal "$(sed -n 4p typed)" "ran:znsimg zones --format=csv disk.qcow2 fu:"
else
	echo "not here: zsh"
fi

finish
