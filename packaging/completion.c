/* SPDX-License-Identifier: MIT */
/*
 * completion bash|zsh|fish znsd|znsimg: prints the completion script of a program for a shell. The
 * build runs it. It prints the tables that feed the program's parser and help.
 *
 * A script knows the verbs, the options of each, what the argument of an option may be, and the
 * keys of "key=value,..." with their values. It leaves paths to the shell.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "cli.h"
#include "options.h"
#include "text.h"
#include "znsimg.h"

/* A verb, or the whole of a program without verbs, whose name is then "". */
struct command {
	const char *name, *summary;
	const struct cli_option *options;
	struct cli_option first; /* operand */
	struct cli_option other; /* operands behind the first */
};

#define MAX_COMMANDS 16

struct program {
	const char *name;
	bool has_verbs;
	struct command commands[MAX_COMMANDS];
	unsigned int n;
};

/* The spellings of an option, "-f" and "--format", or those of them that it has: their number. */
static unsigned int spell(const struct cli_option *o, char out[2][64])
{
	unsigned int n = 0;

	if (o->id < CLI_LONG)
		snprintf(out[n++], 64, "-%c", o->id);
	if (o->name)
		snprintf(out[n++], 64, "--%s", o->name);
	return n;
}

/* WORDS, which are "a|b|c", with BETWEEN in place of each bar. */
static void print_words(const char *words, const char *between)
{
	for (; *words; words++)
		if (*words == '|')
			fputs(between, stdout);
		else
			putchar(*words);
}

/* TEXT for a place within single quotes; a backslash goes before each character of SPECIAL. */
static void print_quoted(const char *text, const char *special)
{
	for (; *text; text++)
		if (*text == '\'')
			fputs("'\\''", stdout);
		else if (strchr(special, *text))
			printf("\\%c", *text);
		else
			putchar(*text);
}

/*
 * bash: two functions that look rows of the tables up, and one that is the same in each script.
 */

/* The beginning of a row: "VERB:OPTION:KEY". OPERAND stands for the option where it is not NULL. */
static void bash_case(const char *verb, const struct cli_option *o, const char *operand,
		      const char *key)
{
	char spelt[2][64];
	unsigned int n = 1;

	if (operand)
		snprintf(spelt[0], sizeof(spelt[0]), "%s", operand);
	else
		n = spell(o, spelt);
	for (unsigned int i = 0; i < n; i++)
		printf("%s%s:%s:%s", i ? " | " : "\t", verb, spelt[i], key);
	fputs(") echo '", stdout);
}

static void bash_keys(const struct cli_option *o)
{
	for (unsigned int i = 0; o->key(i); i++)
		printf("%s%s%s", i ? " " : "", o->key(i)->name, o->key(i)->arg ? "=" : "");
	puts("' ;;");
}

/* What the argument of an option, or an operand, may be: it, its keys, and the keys' values. */
static void bash_argument(const char *verb, const struct cli_option *o, const char *operand)
{
	bash_case(verb, o, operand, "");
	if (o->words || !o->key) {
		print_words(o->words ? o->words : "<any>", " ");
		puts("' ;;");
	} else {
		bash_keys(o);
	}
	if (!o->key)
		return;
	bash_case(verb, o, operand, ",");
	bash_keys(o);
	for (unsigned int i = 0; o->key(i); i++) {
		if (!o->key(i)->arg)
			continue;
		bash_case(verb, o, operand, o->key(i)->name);
		print_words(o->key(i)->words ? o->key(i)->words : "<any>", " ");
		puts("' ;;");
	}
}

static const char bash_engine[] =
	"_NAME()\n"
	"{\n"
	"\tlocal line=${COMP_LINE:0:COMP_POINT} before='' verb='' option='' word cur what char i\n"
	"\tlocal -a words\n"
	"\n"
	"\tCOMPREPLY=()\n"
	"\tread -ra words <<<\"$line\"\n"
	"\t[[ $line == *[[:space:]] ]] && words+=('')\n"
	"\tcur=${words[-1]}\n"
	"\tif ((FIRST == 2)); then\n"
	"\t\tif ((${#words[@]} == 2)); then\n"
	"\t\t\tmapfile -t COMPREPLY < <(compgen -W 'VERBS --help --version' -- \"$cur\")\n"
	"\t\t\treturn\n"
	"\t\tfi\n"
	"\t\tverb=${words[1]}\n"
	"\tfi\n"
	"\n"
	"\t# Is the word an option, the argument of one, the first operand or another?\n"
	"\tfor ((i = FIRST; i < ${#words[@]}; i++)); do\n"
	"\t\tword=${words[i]}\n"
	"\t\tif ((i == ${#words[@]} - 1)); then\n"
	"\t\t\tif [[ $word == --*=* ]]; then\n"
	"\t\t\t\toption=${word%%=*} before=${word%%=*}= cur=${word#*=}\n"
	"\t\t\telif [[ $word == -* ]]; then\n"
	"\t\t\t\tmapfile -t COMPREPLY < <(compgen -W \"$(_NAME_options \"$verb\")\" -- \"$cur\")\n"
	"\t\t\t\treturn\n"
	"\t\t\tfi\n"
	"\t\telif [[ $word != -* ]]; then\n"
	"\t\t\toption=operand\n"
	"\t\telif [[ $word != *=* && -n $(_NAME_argument \"$verb\" \"$word\" '') ]]; then\n"
	"\t\t\tif ((++i == ${#words[@]} - 1)); then\n"
	"\t\t\t\toption=$word\n"
	"\t\t\tfi\n"
	"\t\tfi\n"
	"\tdone\n"
	"\n"
	"\twhat=$(_NAME_argument \"$verb\" \"$option\" '')\n"
	"\tif [[ $cur == *[,=]* && -n $(_NAME_argument \"$verb\" \"$option\" ,) ]]; then\n"
	"\t\tif [[ $cur == *,* ]]; then\n"
	"\t\t\tbefore+=${cur%,*}, cur=${cur##*,}\n"
	"\t\t\twhat=$(_NAME_argument \"$verb\" \"$option\" ,)\n"
	"\t\tfi\n"
	"\t\tif [[ $cur == *=* && $what != '<file>' ]]; then\n"
	"\t\t\twhat=$(_NAME_argument \"$verb\" \"$option\" \"${cur%%=*}\")\n"
	"\t\t\tbefore+=${cur%%=*}= cur=${cur#*=}\n"
	"\t\tfi\n"
	"\tfi\n"
	"\n"
	"\tcase $what in\n"
	"\t'<file>') return ;; # readline's own, by -o default\n"
	"\t'<directory>') compopt +o default -o dirnames 2>/dev/null ;;\n"
	"\t'' | '<any>') compopt +o default 2>/dev/null ;;\n"
	"\t*)\n"
	"\t\t# readline replaces what is behind the last character of COMP_WORDBREAKS.\n"
	"\t\tfor char in = :; do\n"
	"\t\t\t[[ $COMP_WORDBREAKS == *$char* ]] && before=${before##*\"$char\"}\n"
	"\t\tdone\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -P \"$before\" -W \"$what\" -- \"$cur\")\n"
	"\t\tcompopt +o default 2>/dev/null\n"
	"\t\t[[ -n $(_NAME_argument \"$verb\" \"$option\" ,) ]] && compopt -o nospace 2>/dev/null\n"
	"\t\t;;\n"
	"\tesac\n"
	"}\n"
	"complete -o default -F _NAME NAME\n";

static void print_bash(const struct program *p)
{
	printf("_%s_options()\n{\n\tcase $1 in\n", p->name);
	for (unsigned int i = 0; i < p->n; i++) {
		const struct command *c = &p->commands[i];

		printf("\t'%s') echo '", c->name);
		for (const struct cli_option *o = c->options; o->id; o++) {
			char spelt[2][64];
			unsigned int n = o->help ? spell(o, spelt) : 0;

			for (unsigned int k = 0; k < n; k++)
				printf("%s%s", k || o != c->options ? " " : "", spelt[k]);
		}
		puts("' ;;");
	}
	printf("\tesac\n}\n\n_%s_argument()\n{\n\tcase $1:$2:$3 in\n", p->name);
	for (unsigned int i = 0; i < p->n; i++) {
		const struct command *c = &p->commands[i];

		bash_argument(c->name, &c->first, "");
		bash_argument(c->name, &c->other, "operand");
		for (const struct cli_option *o = c->options; o->id; o++)
			if (o->help && o->arg)
				bash_argument(c->name, o, NULL);
	}
	puts("\tesac\n}\n");
	for (const char *s = bash_engine; *s; s++) {
		if (!strncmp(s, "NAME", 4)) {
			fputs(p->name, stdout);
			s += 3;
		} else if (!strncmp(s, "FIRST", 5)) {
			putchar(p->has_verbs ? '2' : '1');
			s += 4;
		} else if (!strncmp(s, "VERBS", 5)) {
			for (unsigned int i = 0; i < p->n; i++)
				printf("%s%s", i ? " " : "", p->commands[i].name);
			s += 4;
		} else {
			putchar(*s);
		}
	}
}

/*
 * zsh: _arguments for each verb, _values for keys.
 */

/* The name of the function that completes the keys of O. */
static void zsh_keys_name(const struct program *p, const struct command *c,
			  const struct cli_option *o)
{
	printf("_%s_%s%s", p->name, c->name, o->name ? o->name : "operand");
}

/* ":MESSAGE:ACTION" of an argument. */
static void zsh_action(const struct program *p, const struct command *c, const struct cli_option *o)
{
	putchar(':');
	print_quoted(o->arg, ":");
	putchar(':');
	if (o->key) {
		zsh_keys_name(p, c, o);
	} else if (o->words && !strcmp(o->words, CLI_FILE)) {
		fputs("_files", stdout);
	} else if (o->words && !strcmp(o->words, CLI_DIR)) {
		fputs("_files -/", stdout);
	} else if (o->words) {
		putchar('(');
		print_words(o->words, " ");
		putchar(')');
	}
}

static void zsh_keys(const struct program *p, const struct command *c, const struct cli_option *o)
{
	if (!o->key)
		return;
	zsh_keys_name(p, c, o);
	puts("()\n{");
	if (o->words) /* a path before the keys */
		puts("\tif ! compset -P '[^,]##,'; then\n\t\t_files\n\t\treturn\n\tfi");
	printf("\t_values -s , '%s'", o->arg);
	for (unsigned int i = 0; o->key(i); i++) {
		printf(" \\\n\t\t'%s[", o->key(i)->name);
		print_quoted(o->key(i)->help, ":[]");
		putchar(']');
		if (o->key(i)->arg)
			zsh_action(p, c, o->key(i));
		putchar('\'');
	}
	puts("\n}\n");
}

static void zsh_options(const struct program *p, const struct command *c, const char *indent)
{
	printf("%s_arguments -s", indent);
	for (const struct cli_option *o = c->options; o->id; o++) {
		if (!o->help)
			continue;
		printf(" \\\n%s\t'*'", indent);
		if (o->id < CLI_LONG && o->name)
			printf("{-%c%s,--%s%s}'[", o->id, o->arg ? "+" : "", o->name,
			       o->arg ? "=" : "");
		else if (o->name)
			printf("--%s%s'[", o->name, o->arg ? "=" : "");
		else
			printf("-%c%s'[", o->id, o->arg ? "+" : "");
		print_quoted(o->help, ":[]");
		putchar(']');
		if (o->arg)
			zsh_action(p, c, o);
		putchar('\'');
	}
	printf(" \\\n%s\t'1", indent);
	zsh_action(p, c, &c->first);
	printf("' \\\n%s\t'*", indent);
	zsh_action(p, c, &c->other);
	puts("'");
}

static void print_zsh(const struct program *p)
{
	for (unsigned int i = 0; i < p->n; i++) {
		const struct command *c = &p->commands[i];

		zsh_keys(p, c, &c->first);
		for (const struct cli_option *o = c->options; o->id; o++)
			if (o->help)
				zsh_keys(p, c, o);
	}
	if (!p->has_verbs) {
		printf("_%s()\n{\n", p->name);
		zsh_options(p, &p->commands[0], "\t");
		printf("}\n\n_%s \"$@\"\n", p->name);
		return;
	}
	printf("_%s()\n{\n\tlocal -a verbs=(\n", p->name);
	for (unsigned int i = 0; i < p->n; i++)
		printf("\t\t'%s:%s'\n", p->commands[i].name, p->commands[i].summary);
	puts("\t\t'--help:say what the verbs are'\n\t\t'--version:say the version'\n\t)\n\n"
	     "\tif ((CURRENT == 2)); then\n\t\t_describe verb verbs\n\t\treturn\n\tfi\n"
	     "\tshift words\n\t((CURRENT--))\n\tcase $words[1] in");
	for (unsigned int i = 0; i < p->n; i++) {
		printf("\t%s)\n", p->commands[i].name);
		zsh_options(p, &p->commands[i], "\t\t");
		puts("\t\t;;");
	}
	printf("\tesac\n}\n\n_%s \"$@\"\n", p->name);
}

/*
 * fish: a line for each option, a function for keys.
 */

static void fish_keys_name(const struct program *p, const struct command *c,
			   const struct cli_option *o)
{
	printf("__%s_%s%s", p->name, c->name, o->name ? o->name : "operand");
}

static void fish_keys(const struct program *p, const struct command *c, const struct cli_option *o)
{
	if (!o->key)
		return;
	fputs("function ", stdout);
	fish_keys_name(p, c, o);
	printf("\n    set -l token (commandline -ct | string replace -r '^(-%c|--%s=)' '')\n"
	       "    set -l before (string match -r '^.*,' -- $token)\n",
	       o->id < CLI_LONG ? o->id : '-', o->name ? o->name : "-");
	if (o->words) /* a path before the keys */
		puts("    test -n \"$before\"; or begin\n        __fish_complete_path $token\n"
		     "        return\n    end");
	puts("    switch (string replace -r '^.*,' '' -- $token)");
	for (unsigned int i = 0; o->key(i); i++) {
		const struct cli_option *key = o->key(i);

		if (!key->arg)
			continue;
		printf("        case '%s=*'\n", key->name);
		for (const char *w = key->words; w && *w; w += strspn(w, "|")) {
			int n = (int)strcspn(w, "|");

			printf("            echo \"$before\"'%s=%.*s'\n", key->name, n, w);
			w += n;
		}
	}
	puts("        case '*'");
	for (unsigned int i = 0; o->key(i); i++) {
		printf("            printf '%%s\\t%%s\\n' \"$before\"'%s%s' '", o->key(i)->name,
		       o->key(i)->arg ? "=" : "");
		print_quoted(o->key(i)->help, "");
		puts("'");
	}
	puts("    end\nend\n");
}

/* " -x -a WORDS" and the like. */
static void fish_words(const struct program *p, const struct command *c, const struct cli_option *o)
{
	if (o->key) {
		fputs(" -x -a '(", stdout);
		fish_keys_name(p, c, o);
		fputs(")'", stdout);
	} else if (o->words && *o->words == '<') {
		fputs(strcmp(o->words, CLI_DIR) ? " -F" : " -x -a '(__fish_complete_directories)'",
		      stdout);
	} else if (o->words) {
		fputs(" -x -a '", stdout);
		print_words(o->words, " ");
		putchar('\'');
	}
}

static void fish_command(const struct program *p, const struct command *c)
{
	char where[128] = "";

	if (p->has_verbs)
		snprintf(where, sizeof(where), " -n '__fish_seen_subcommand_from %s'", c->name);
	fish_keys(p, c, &c->first);
	for (const struct cli_option *o = c->options; o->id; o++) {
		if (!o->help)
			continue;
		fish_keys(p, c, o);
		printf("complete -c %s%s", p->name, where);
		if (o->id < CLI_LONG)
			printf(" -s %c", o->id);
		if (o->name)
			printf(" -l %s", o->name);
		if (o->arg && !o->words && !o->key)
			fputs(" -x", stdout);
		else if (o->arg)
			fish_words(p, c, o);
		fputs(" -d '", stdout);
		print_quoted(o->help, "");
		puts("'");
	}
	printf("complete -c %s%s", p->name, where);
	fish_words(p, c, &c->first);
	putchar('\n');
	if (c->other.words && *c->other.words != '<') {
		printf("complete -c %s%s", p->name, where);
		fish_words(p, c, &c->other);
		putchar('\n');
	}
}

static void print_fish(const struct program *p)
{
	printf("complete -c %s -f\n", p->name);
	if (p->has_verbs) {
		printf("complete -c %s -n __fish_use_subcommand -l help -d 'say what the verbs "
		       "are'\n"
		       "complete -c %s -n __fish_use_subcommand -l version -d 'say the version'\n",
		       p->name, p->name);
	}
	for (unsigned int i = 0; i < p->n; i++) {
		const struct command *c = &p->commands[i];

		if (p->has_verbs)
			printf("\ncomplete -c %s -n __fish_use_subcommand -a %s -d '%s'\n", p->name,
			       c->name, c->summary);
		fish_command(p, c);
	}
}

/* The tables. */

static void describe_znsd(struct program *p)
{
	p->commands[p->n++] = (struct command){
		.name = "",
		.options = options_table,
		.first = options_image,
		.other = options_image,
	};
}

static void describe_znsimg(struct program *p)
{
	p->has_verbs = true;
	for (unsigned int i = 0; img_verbs[i] && p->n < MAX_COMMANDS; i++)
		p->commands[p->n++] = (struct command){
			.name = img_verbs[i]->name,
			.summary = img_verbs[i]->summary,
			.options = img_verbs[i]->options,
			.first = { .arg = "image", .words = CLI_FILE },
			.other = { .arg = "argument", .words = img_verbs[i]->words },
		};
}

int main(int argc, char **argv)
{
	int shell = argc == 3 ? word_index("bash|zsh|fish", argv[1]) : -1;
	int which = argc == 3 ? word_index("znsd|znsimg", argv[2]) : -1;
	struct program program = { .n = 0 };

	if (shell < 0 || which < 0) {
		fputs("usage: completion bash|zsh|fish znsd|znsimg\n", stderr);
		return 2;
	}
	program.name = argv[2];
	if (which)
		describe_znsimg(&program);
	else
		describe_znsd(&program);
	if (shell == 1)
		printf("#compdef %s\n", program.name);
	printf("# Made by packaging/completion.c from the options of %s; not to be edited.\n\n",
	       program.name);
	if (shell == 0)
		print_bash(&program);
	else if (shell == 1)
		print_zsh(&program);
	else
		print_fish(&program);
	return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
