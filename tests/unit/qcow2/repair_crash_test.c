/* SPDX-License-Identifier: MIT */
/*
 * Power cuts during a repair. The repair of each damage is recorded. Between two syncs, each prefix
 * of the writes, each prefix without one or two of its writes, and each prefix whose last write is
 * torn at its middle sector makes a state of the disk. In each state there is no harm that was not
 * there before, the disk reads as before, and a second repair leaves no finding.
 */
#include "repair_kit.h"

/* Judges disks to which some of the recorded writes were applied. */
struct replay {
	const struct ramdisk *before, *record;
	struct verdict was;
	const struct image *image;
	unsigned int states;
	char wrong[400];
};

static void apply(struct ramdisk *d, const struct ram_op *op, bool torn)
{
	uint64_t len = op->len;

	if (op->call == RAM_TRUNCATE && op->len > d->size)
		d->size = op->len;
	if (op->call != RAM_WRITE)
		return;
	if (torn)
		len = len / 2 / 512 * 512;
	memcpy(d->bytes + op->off, op->data, len);
	if (len && op->off + len > d->size)
		d->size = op->off + len;
}

/* Judges the disk after TO operations without SKIP1 and SKIP2; TORN: with half of the last one. */
static void judge_state(struct replay *r, size_t to, size_t skip1, size_t skip2, bool torn)
{
	struct ramdisk *d = ram_copy(r->before);
	struct verdict v = { 0 };
	const char *what = NULL;
	uint64_t where = 0;
	int err;

	for (size_t i = 0; i < to; i++)
		if (i != skip1 && i != skip2)
			apply(d, &r->record->ops[i], torn && i == to - 1);
	r->states++;
	err = try_repair(d, 0, &v);
	if (err)
		what = "cannot be opened";
	else if (r->image->mark_suffices && d->bytes[79] & INCOMPAT_CORRUPT)
		what = NULL;
	else if (v.harm > r->was.harm + r->image->flags_too_many || v.dangling > r->was.dangling)
		what = "more harm than before";
	else if (!intact(r->image, d, &where))
		what = "reads otherwise";
	if (!what && (try_repair(d, QCOW2_FIX_ALL, &v) || try_repair(d, 0, &v) || v.lines))
		what = "a second repair leaves something";
	if (!what && !intact(r->image, d, &where))
		what = "reads otherwise after a second repair";
	if (what && !r->wrong[0])
		snprintf(r->wrong, sizeof(r->wrong),
			 "%zu of %zu operations, without %zd, %zd%s: %s (0x%llx; %s)", to,
			 r->record->nr_ops, (ssize_t)skip1, (ssize_t)skip2, torn ? ", torn" : "",
			 what, (unsigned long long)where, v.last);
	ram_free(d);
}

static unsigned int all_states;

static const char *cut_everywhere(struct image *i)
{
	static struct replay r;
	struct verdict was, v;
	const size_t none = SIZE_MAX;
	struct ramdisk *before = ram_copy(i->d);
	size_t epoch = 0, step;

	assert_int_equal(try_repair(i->d, 0, &was), 0);
	i->d->keep_data = true;
	ram_forget(i->d);
	assert_int_equal(try_repair(i->d, QCOW2_FIX_ALL, &v), 0);
	r = (struct replay){ .before = before, .record = i->d, .was = was, .image = i };
	assert_true(i->d->nr_ops > 1);
	assert_int_equal(i->d->ops[i->d->nr_ops - 1].call, RAM_SYNC);
	for (size_t n = 1; n <= i->d->nr_ops; n++) {
		const struct ram_op *last = &i->d->ops[n - 1];

		judge_state(&r, n, none, none, false);
		if (last->call == RAM_WRITE && last->len > 512)
			judge_state(&r, n, none, none, true);
		/*
		 * Leaves out any operations since the last sync but the last, which gives a prefix.
		 */
		step = 1 + (n - epoch) / 8; /* a sample if there were many */
		for (size_t a = epoch; a + 1 < n && last->call != RAM_SYNC; a += step) {
			judge_state(&r, n, a, none, false);
			if (n - epoch <= 8)
				for (size_t b = a + 1; b + 1 < n; b++)
					judge_state(&r, n, a, b, false);
		}
		if (last->call == RAM_SYNC)
			epoch = n;
	}
	all_states += r.states;
	ram_free(before);
	return r.wrong[0] ? r.wrong : NULL;
}

static void a_cut_in_the_middle_makes_nothing_worse(void **state)
{
	const char *stride = getenv("STRIDE");

	(void)state;
	for_each_damage(cut_everywhere, stride ? (unsigned int)atoi(stride) : 5, 1);
	print_message("%u states\n", all_states);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cut_in_the_middle_makes_nothing_worse),
	};

	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	tally("repair_cut damaged_images=%u states=%u violations=%u", damaged_images, all_states,
	      badly_repaired);
	return failed;
}
