/* SPDX-License-Identifier: MIT */
/*
 * The shadow (qcow2/shadow.c, replay.c): whatever the moment of a kill, the next open finds what
 * had been acknowledged.
 *
 * A kill is made by copying the image's bytes and the shadow's at that moment and opening the
 * copies. Moments are: before every call at the seam, and before every single store into the
 * shadow, which is write-protected: each store faults, is looked at, and is let through alone by
 * the processor's single-step flag.
 *
 * Messages name the clause of the contract that is broken (docs/reliability.md); with the engine
 * that has planted bugs the test is the laboratory of the shadow (tests/crash/planted.txt).
 */
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <ucontext.h>

#include "common.h"
#include "shadow.h"

#define ZONES 16u
#define ZONE  (64 * KIB)
#define CAP   (48 * KIB)

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define CAN_STEP 1
#else
#define CAN_STEP 0
#endif

static char top[64], live_dir[80], adopt_dir[80];
static char notice[QCOW2_ERRLEN];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static int setup(void **state)
{
	(void)state;
	snprintf(top, sizeof(top), "/dev/shm/znsd-unit.XXXXXX");
	assert_non_null(mkdtemp(top));
	snprintf(live_dir, sizeof(live_dir), "%s/live", top);
	snprintf(adopt_dir, sizeof(adopt_dir), "%s/adopt", top);
	assert_int_equal(mkdir(live_dir, 0700), 0);
	assert_int_equal(mkdir(adopt_dir, 0700), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	nftw(top, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	return 0;
}

static struct qcow2 *open_in(struct ramdisk *d, const char *dir)
{
	struct qcow2_open_opts o = { .file = ram_open(d), .shadow_dir = dir, .notice = notice };
	char err[QCOW2_ERRLEN] = "";
	struct qcow2 *q = NULL;

	if (qcow2_open("ram", &o, &q, err))
		fail_msg("open: %s", err);
	return q;
}

/* The process is gone: what it had in memory is freed, its file and shadow stay as they are. */
static void kill_process(struct ramdisk *d, struct qcow2 *q)
{
	atomic_store(&q->poisoned, EIO);
	qcow2_close(q);
	(void)d;
}

/* The only shadow in DIR. */
static void shadow_path(const struct qcow2 *q, const char *dir, char path[256])
{
	int n = snprintf(path, 256, "%s/", dir);

	for (int i = 0; i < QCOW2_UUID; i++)
		n += snprintf(path + n, 256 - n, "%02x", q->info.uuid[i]);
	snprintf(path + n, 256 - n, "-0-1.shadow");
}

static void put_file(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	close(fd);
}

static bool exists(const char *path)
{
	return !access(path, F_OK);
}

/* --- a model of the drive, and kills --- */

struct zone_model {
	uint64_t wp, data; /* bytes from the zone's start; behind DATA there are zeroes */
	unsigned int version;
};

struct lab {
	struct ramdisk *disk;
	struct qcow2 *q;
	struct zone_model zone[ZONES], next; /* NEXT: of the zone in flight */
	unsigned int in_flight;		     /* ZONES: none */
	unsigned int version;
	unsigned int kills, adoption_kills;
	bool off; /* no kills now */
	uint8_t *shadow;
	size_t shadow_len;
};
static struct lab *the_lab;

/* What was acknowledged is at its address. */
static bool holds(struct qcow2 *q, unsigned int i, const struct zone_model *m)
{
	uint8_t *want = pattern(i * ZONE, CAP, m->version), *got = malloc(CAP);
	bool same;

	memset(want + m->data, 0, CAP - m->data);
	assert_int_equal(qcow2_read(q, got, i * ZONE, CAP, 0), 0);
	same = !memcmp(want, got, m->wp);
	free(want);
	free(got);
	return same;
}

static void expect_zone(struct qcow2 *q, unsigned int i, const struct zone_model *m)
{
	if (!holds(q, i, m))
		fail_msg("D4: zone %u does not hold what was written to it", i);
}

static void expect_drive(struct lab *l, struct qcow2 *q)
{
	for (unsigned int i = 0; i < ZONES; i++) {
		uint64_t wp = qcow2_wp(q, i) - i * ZONE;
		const struct zone_model *m = &l->zone[i];

		if (i == l->in_flight && wp == l->next.wp)
			m = &l->next;
		if (wp != m->wp)
			fail_msg("D7: zone %u: write pointer %llu, not %llu", i,
				 (unsigned long long)wp, (unsigned long long)m->wp);
		expect_zone(q, i, m);
	}
}

/* LEAKS: it may have some. */
static void expect_no_corruption(struct ramdisk *d, bool leaks)
{
	struct ramdisk *copy = ram_copy(d);
	struct qcow2_check_result res = { 0 };
	struct qcow2 *q = open_image(copy, QCOW2_RDONLY | QCOW2_INSPECT);

	assert_int_equal(qcow2_check(q, &res, say, leaks ? top : NULL), 0);
	if (res.corruptions || res.check_errors || (res.leaks && !leaks))
		fail_msg("D6: %llu corruptions, %llu errors, %llu leaks",
			 (unsigned long long)res.corruptions, (unsigned long long)res.check_errors,
			 (unsigned long long)res.leaks);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(copy);
}

/* Opens what a kill has left, looks at it, uses it, and looks again without a shadow. */
static void expect_adopted(struct lab *l, struct ramdisk *d, bool leaks)
{
	unsigned int i = l->in_flight < ZONES ? l->in_flight : 3;
	struct qcow2 *q = open_in(d, adopt_dir);
	uint64_t wp = qcow2_wp(q, i);

	if (strstr(notice, "not used"))
		fail_msg("D7: %s", notice);
	expect_drive(l, q);
	expect_no_corruption(d, leaks);
	if (wp + 4096 <= i * ZONE + CAP) {
		put(q, wp, 4096, 77);
		qcow2_wp_advance(q, i, wp + 4096);
	}
	put(q, 15 * ZONE, 512, 78); /* a new zone: new clusters, maybe new tables */
	assert_int_equal(qcow2_close(q), 0);
	expect_no_corruption(d, leaks);
	q = open_image(d, QCOW2_RDONLY);
	if (wp + 4096 <= i * ZONE + CAP)
		expect(q, wp, 4096, 77);
	for (unsigned int k = 0; k < ZONES; k++)
		if (k != i)
			expect_zone(q, k, &l->zone[k]);
	assert_int_equal(qcow2_close(q), 0);
}

struct cut {
	unsigned int calls;
};

static int cut_after(void *arg, const struct ram_op *op)
{
	struct cut *c = arg;

	if (op->call == RAM_READ)
		return 0;
	return c->calls ? (c->calls--, 0) : -EIO;
}

/* Kills the adoption itself before each of its calls, then adopts. */
static void kill_adoptions(struct lab *l, const char *path)
{
	for (unsigned int n = 0;; n++) {
		struct ramdisk *d = ram_copy(l->disk);
		struct cut cut = { n };
		struct qcow2_open_opts o = { .file = ram_open(d),
					     .shadow_dir = adopt_dir,
					     .notice = notice };
		char err[QCOW2_ERRLEN];
		struct qcow2 *q;
		int ret;

		put_file(path, l->shadow, l->shadow_len);
		d->hook = cut_after;
		d->hook_arg = &cut;
		ret = qcow2_open("ram", &o, &q, err);
		d->hook = NULL;
		if (!ret)
			kill_process(d, q);
		expect_adopted(l, d, true);
		ram_free(d);
		l->adoption_kills++;
		if (!ret)
			return;
	}
}

/* A kill at this moment. */
static void kill_here(struct lab *l)
{
	struct ramdisk *d;
	char path[256];

	if (l->off)
		return;
	l->off = true;
	memcpy(l->shadow, (uint8_t *)l->q->wp - sizeof(struct shadow_head), l->shadow_len);
	shadow_path(l->q, adopt_dir, path);
	put_file(path, l->shadow, l->shadow_len);
	d = ram_copy(l->disk);
	expect_adopted(l, d, false);
	assert_false(exists(path)); /* closed cleanly */
	ram_free(d);
	if (l->kills++ % 11 == 0)
		kill_adoptions(l, path);
	l->off = false;
}

static int kill_before_call(void *arg, const struct ram_op *op)
{
	if (op->call != RAM_READ)
		kill_here(arg);
	return 0;
}

#if CAN_STEP
static void protect(struct lab *l, bool on)
{
	void *head = (uint8_t *)l->q->wp - sizeof(struct shadow_head);

	assert_int_equal(mprotect(head, l->shadow_len, PROT_READ | (on ? 0 : PROT_WRITE)), 0);
}

static void on_store(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)sig;
	if ((uint8_t *)info->si_addr - ((uint8_t *)the_lab->q->wp - sizeof(struct shadow_head)) >=
	    (ptrdiff_t)the_lab->shadow_len)
		abort();
	kill_here(the_lab);
	protect(the_lab, false);
	u->uc_mcontext.gregs[REG_EFL] |= 0x100; /* TF */
}

static void on_step(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)sig, (void)info;
	u->uc_mcontext.gregs[REG_EFL] &= ~0x100ll;
	protect(the_lab, true);
}
#else
static void protect(struct lab *l, bool on)
{
	(void)l, (void)on;
}
#endif

static void lab_begin(struct lab *l, struct qcow2_create_opts o)
{
#if CAN_STEP
	struct sigaction store = { .sa_sigaction = on_store, .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct sigaction step = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &store, NULL);
	sigaction(SIGTRAP, &step, NULL);
#endif
	*l = (struct lab){ .in_flight = ZONES };
	the_lab = l;
	l->disk = make_image(&o);
	l->q = open_in(l->disk, live_dir);
	assert_string_equal(notice, "");
	l->shadow_len = shadow_bytes(ZONES);
	l->shadow = malloc(l->shadow_len);
	for (unsigned int i = 0; i < ZONES; i++)
		l->zone[i].version = ++l->version;
	l->disk->hook = kill_before_call;
	l->disk->hook_arg = l;
	protect(l, true);
}

static void lab_end(struct lab *l)
{
	print_message("%u kills, %u of adoptions\n", l->kills, l->adoption_kills);
	l->off = true;
	protect(l, false);
	expect_drive(l, l->q);
	assert_int_equal(qcow2_close(l->q), 0);
	expect_sound(l->disk, 0);
	ram_free(l->disk);
	free(l->shadow);
	signal(SIGSEGV, SIG_DFL);
	signal(SIGTRAP, SIG_DFL);
}

static void done(struct lab *l)
{
	l->zone[l->in_flight] = l->next;
	l->in_flight = ZONES;
	kill_here(l);
}

static void lab_write(struct lab *l, unsigned int i, uint64_t len)
{
	struct zone_model *m = &l->zone[i];

	l->next = (struct zone_model){ m->wp + len, m->wp + len, m->version };
	l->in_flight = i;
	put(l->q, i * ZONE + m->wp, len, m->version);
	qcow2_wp_advance(l->q, i, i * ZONE + m->wp + len);
	done(l);
}

/* A write that fails when its data is there: the pointer stays. */
static void lab_write_failing(struct lab *l, unsigned int i, uint64_t len)
{
	put(l->q, i * ZONE + l->zone[i].wp, len, 99);
	kill_here(l);
}

static void lab_reset(struct lab *l, unsigned int i)
{
	l->next = (struct zone_model){ 0, 0, ++l->version };
	l->in_flight = i;
	assert_int_equal(qcow2_zone_reset(l->q, i), 0);
	done(l);
}

static void lab_finish(struct lab *l, unsigned int i)
{
	const struct zone_model *m = &l->zone[i];

	l->next = (struct zone_model){ CAP, m->wp, m->version };
	l->in_flight = i;
	assert_int_equal(qcow2_zone_finish(l->q, i, i * ZONE + m->wp), 0);
	done(l);
}

static void lab_flush(struct lab *l)
{
	assert_int_equal(qcow2_flush(l->q), 0);
	kill_here(l);
}

/* Every kind of history a zone can have between two flushes. */
static void lab_history(struct lab *l)
{
	lab_write(l, 0, 4096);
	lab_write(l, 1, 512);
	lab_write(l, 0, 10240);
	lab_write_failing(l, 1, 16384);
	lab_finish(l, 1);
	lab_flush(l);
	lab_reset(l, 0);
	lab_write(l, 0, 8192);
	lab_write(l, 2, CAP);
	lab_reset(l, 2);
	lab_flush(l);
	lab_write(l, 2, 512);
	lab_reset(l, 2);
	lab_write(l, 2, 1024);
	lab_finish(l, 2);
	lab_reset(l, 1);
	lab_flush(l);
	lab_finish(l, 3); /* empty */
	lab_reset(l, 3);
	lab_finish(l, 0);
	lab_reset(l, 0);
	lab_write(l, 4, 20480); /* clusters that were given back */
	lab_write(l, 0, 4096);
	lab_flush(l);
	lab_flush(l);
}

static void a_kill_at_any_store_or_call_loses_nothing(void **state)
{
	struct lab l;

	(void)state;
	lab_begin(&l, small_zoned());
	lab_history(&l);
	lab_end(&l);
	assert_true(l.kills > (CAN_STEP ? 200 : 40)); /* without steps: at the calls alone */
}

static void small_clusters_and_growing_tables_too(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct lab l;

	(void)state;
	o.cluster_size = 512;
	lab_begin(&l, o);
	lab_write(&l, 0, 4096);
	lab_write(&l, 7, CAP);
	lab_write(&l, 8, CAP);
	lab_flush(&l);
	lab_reset(&l, 7);
	lab_write(&l, 9, CAP);
	lab_write(&l, 7, 1536);
	lab_finish(&l, 7);
	lab_flush(&l);
	lab_end(&l);
}

/*
 * A refcount block speaks for 256 clusters, a zone has 24. Of two zones the first on the disk is the
 * later in the file: counting it needs another block when the other is not counted yet.
 */
static void an_adoption_may_need_tables(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct lab l;

	(void)state;
	o.cluster_size = 2048;
	o.refcount_bits = 64;
	lab_begin(&l, o);
	for (unsigned int i = 14; i; i -= 2) {
		lab_write(&l, i, 1024);
		lab_write(&l, i - 1, 1024);
		lab_flush(&l);
	}
	lab_end(&l);
}

/* --- the life of the file --- */

/* A disk and the shadow that a kill has left; PATH is its place in adopt_dir. */
static struct ramdisk *killed(uint8_t **shadow, char path[256])
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_in(d, live_dir);
	size_t len = shadow_bytes(ZONES);

	put(q, 9 * ZONE, 4096, 9); /* in the image */
	qcow2_wp_advance(q, 9, 9 * ZONE + 4096);
	put(q, 1 * ZONE, 4096, 8);
	qcow2_wp_advance(q, 1, 1 * ZONE + 4096);
	assert_int_equal(qcow2_flush(q), 0);
	put(q, 0, 8192, 1);
	qcow2_wp_advance(q, 0, 8192);
	assert_int_equal(qcow2_zone_reset(q, 1), 0);
	put(q, 1 * ZONE, 512, 2);
	qcow2_wp_advance(q, 1, 1 * ZONE + 512);
	put(q, 2 * ZONE, 4608, 3);
	assert_int_equal(qcow2_zone_finish(q, 2, 2 * ZONE + 4608), 0);
	*shadow = malloc(len);
	memcpy(*shadow, (uint8_t *)q->wp - sizeof(struct shadow_head), len);
	shadow_path(q, adopt_dir, path);
	put_file(path, *shadow, len);
	kill_process(d, q);
	ram_forget(d);
	return d;
}

/* 1: as it was acknowledged; 0: as it was flushed; -1: neither. */
static int state_of(struct qcow2 *q)
{
	if (qcow2_wp(q, 9) != 9 * ZONE + 4096)
		return -1;
	expect(q, 9 * ZONE, 4096, 9);
	if (qcow2_wp(q, 0) == 0 && qcow2_wp(q, 1) == ZONE + 4096 && qcow2_wp(q, 2) == 2 * ZONE) {
		expect(q, ZONE, 4096, 8);
		return 0;
	}
	if (qcow2_wp(q, 0) != 8192 || qcow2_wp(q, 1) != ZONE + 512 ||
	    qcow2_wp(q, 2) != 2 * ZONE + CAP)
		return -1;
	expect(q, 0, 8192, 1);
	expect(q, ZONE, 512, 2);
	expect(q, 2 * ZONE, 4608, 3);
	expect_zeroes(q, 2 * ZONE + 4608, CAP - 4608);
	return 1;
}

/* Opens a copy of D with the shadow as it lies in adopt_dir: the state, and the image is sound. */
static int adopt_copy(const struct ramdisk *d)
{
	struct ramdisk *copy = ram_copy(d);
	struct qcow2 *q = open_in(copy, adopt_dir);
	int was = state_of(q);

	assert_int_equal(qcow2_close(q), 0);
	expect_no_corruption(copy, true);
	ram_free(copy);
	return was;
}

static void what_was_adopted_is_told(void **state)
{
	uint8_t *shadow;
	char path[256];
	struct ramdisk *d = killed(&shadow, path);

	(void)state;
	assert_int_equal(adopt_copy(d), 1);
	assert_non_null(strstr(notice, "3 zones are taken over"));
	assert_false(exists(path));
	free(shadow);
	ram_free(d);
}

/* Makes DISK what OP has left. */
static void do_op(struct ramdisk *disk, const struct ram_op *op)
{
	if (op->call == RAM_WRITE) {
		memcpy(disk->bytes + op->off, op->data, op->len);
		if (op->off + op->len > disk->size)
			disk->size = op->off + op->len;
	} else if (op->call == RAM_FALLOCATE) {
		memset(disk->bytes + op->off, 0, op->len);
	} else if (op->call == RAM_TRUNCATE) {
		disk->size = op->len;
	}
}

/* A zone that was reset and written again: as it was, empty, or as it is to become. */
static void expect_old_or_new(struct ramdisk *d)
{
	struct ramdisk *copy = ram_copy(d);
	struct qcow2 *q = open_image(copy, 0);
	const uint64_t wp = qcow2_wp(q, 1) - ZONE;
	struct zone_model m = { wp, wp, wp == 4096 ? 8 : 2 };

	if (wp && wp != 4096 && wp != 512)
		fail_msg("D2: zone 1 has a write pointer it never had");
	if (!holds(q, 1, &m))
		fail_msg("D3: zone 1 has old and new data below its pointer");
	assert_int_equal(qcow2_close(q), 0);
	expect_no_corruption(copy, true);
	ram_free(copy);
}

/* In the order of its writes alone; the rest is the crash laboratory's, for it is a flush. */
static void a_power_cut_in_an_adoption_mixes_nothing(void **state)
{
	uint8_t *shadow;
	char path[256];
	struct ramdisk *d = killed(&shadow, path), *copy = ram_copy(d);
	struct qcow2 *q;

	(void)state;
	copy->keep_data = true;
	q = open_in(copy, adopt_dir);
	assert_non_null(strstr(notice, "taken over"));
	for (size_t i = 0; i < copy->nr_ops; i++) {
		do_op(d, &copy->ops[i]);
		expect_old_or_new(d);
	}
	assert_int_equal(qcow2_close(q), 0);
	free(shadow);
	ram_free(copy);
	ram_free(d);
}

static void a_clean_close_leaves_no_shadow(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_in(d, live_dir);
	char path[256];

	(void)state;
	shadow_path(q, live_dir, path);
	assert_true(exists(path));
	put(q, 0, 4096, 1);
	qcow2_wp_advance(q, 0, 4096);
	assert_int_equal(qcow2_close(q), 0);
	assert_false(exists(path));
	q = open_image(d, QCOW2_RDONLY);
	assert_int_equal(q->hdr.autoclear, 0);
	assert_int_equal(q->hdr.generation, 1);
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void a_failed_open_leaves_no_shadow(void **state)
{
	struct qcow2_create_opts o = small_zoned();

	(void)state;
	for (unsigned int n = 0;; n++) {
		struct ramdisk *d = make_image(&o);
		struct qcow2_open_opts how = { .file = ram_open(d),
					       .shadow_dir = live_dir,
					       .notice = notice };
		struct cut cut = { n };
		char err[QCOW2_ERRLEN];
		struct qcow2 *q;
		int ret;

		d->hook = cut_after;
		d->hook_arg = &cut;
		ret = qcow2_open("ram", &how, &q, err);
		d->hook = NULL;
		if (!ret)
			assert_int_equal(qcow2_close(q), 0);
		ram_free(d);
		assert_int_equal(rmdir(live_dir), 0); /* empty */
		assert_int_equal(mkdir(live_dir, 0700), 0);
		if (!ret)
			return;
	}
}

static void another_writer_in_between_makes_it_void(void **state)
{
	uint8_t *shadow;
	char path[256];
	struct ramdisk *d = killed(&shadow, path);
	struct qcow2 *q = open_image(d, 0); /* without a shadow */

	(void)state;
	put(q, 0, 512, 50);
	qcow2_wp_advance(q, 0, 512);
	assert_int_equal(qcow2_close(q), 0);
	q = open_in(d, adopt_dir);
	if (qcow2_wp(q, 0) != 512)
		fail_msg("D1: what another has flushed since is lost");
	assert_non_null(strstr(notice, "opened for writing since"));
	expect(q, 0, 512, 50);
	assert_int_equal(qcow2_close(q), 0);
	assert_false(exists(path));
	free(shadow);
	ram_free(d);
}

static void header_put(struct ramdisk *d, uint64_t off, uint64_t value, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		d->bytes[off + i] = value >> 8 * (bytes - 1 - i);
}

static void what_another_image_says_is_ignored(void **state)
{
	uint8_t *shadow;
	char path[256];
	struct ramdisk *d = killed(&shadow, path), *other;
	struct qcow2 *q = open_image(d, QCOW2_RDONLY);
	const uint64_t ext = q->hdr.ext_znsd;

	(void)state;
	assert_int_equal(q->hdr.generation, 1);
	assert_int_equal(q->hdr.autoclear, AUTOCLEAR_SHADOW);
	qcow2_close(q);
	for (int i = 0; i < 3; i++) {
		other = ram_copy(d);
		put_file(path, shadow, shadow_bytes(ZONES));
		if (i == 0) /* as a program that does not know the bit */
			header_put(other, offsetof(struct disk_header, autoclear_features), 0, 8);
		else if (i == 1)
			header_put(other, ext + 8 + 16, 2, 8);
		else
			other->bytes[ext + 8] ^= 1; /* UUID: not even its name is right */
		if (adopt_copy(other) != 0)
			fail_msg("D3: a shadow that is not the image's was taken over");
		ram_free(other);
	}
	remove(path);
	free(shadow);
	ram_free(d);
}

static void an_extension_of_16_bytes_grows(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_image(d, QCOW2_RDONLY);
	const uint64_t ext = q->hdr.ext_znsd;
	uint8_t uuid[QCOW2_UUID];

	(void)state;
	memcpy(uuid, q->info.uuid, QCOW2_UUID);
	qcow2_close(q);
	header_put(d, ext + 4, QCOW2_UUID, 4);
	for (int i = 0; i < 2; i++) {
		q = open_in(d, live_dir);
		assert_string_equal(notice, "");
		assert_int_equal(q->hdr.generation, i + 1);
		qcow2_close(q);
	}
	q = open_image(d, QCOW2_RDONLY);
	assert_int_equal(q->hdr.ext_znsd_len, 24);
	assert_memory_equal(q->info.uuid, uuid, QCOW2_UUID);
	qcow2_close(q);
	ram_free(d);
}

static void without_a_tmpfs_there_is_a_warning_and_no_shadow(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_in(d, "/proc");

	(void)state;
	assert_non_null(strstr(notice, "not on a tmpfs"));
	assert_null(q->shadow);
	assert_int_equal(qcow2_close(q), 0);
	q = open_in(d, "/nowhere");
	assert_non_null(strstr(notice, "no shadow is kept"));
	assert_int_equal(qcow2_close(q), 0);
	ram_free(d);
}

static void a_full_log_is_flushed(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_in(d, live_dir);

	(void)state;
	for (unsigned int i = 0; i < 3 * SHADOW_ENTRIES; i++) {
		put(q, 0, 512, i);
		qcow2_wp_advance(q, 0, 512);
		assert_int_equal(qcow2_zone_reset(q, 0), 0);
		ram_forget(d);
	}
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

static int fail_syncs(void *arg, const struct ram_op *op)
{
	(void)arg;
	return op->call == RAM_SYNC ? -EIO : 0;
}

static void a_failed_flush_and_then_a_kill_loses_nothing(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_in(d, adopt_dir);

	(void)state;
	put(q, 0, 8192, 1);
	qcow2_wp_advance(q, 0, 8192);
	d->hook = fail_syncs;
	assert_int_equal(qcow2_flush(q), -EIO);
	assert_int_equal(qcow2_close(q), -EIO);
	d->hook = NULL;
	q = open_in(d, adopt_dir);
	if (qcow2_wp(q, 0) != 8192)
		fail_msg("D7: a failed close has lost what was written");
	expect(q, 0, 8192, 1);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

/* What another thread does while a flush waits for the disk: a zone is reset, one rewritten, one begun. */
static struct qcow2 *flushed;

static int sync_beside(struct file *f)
{
	struct qcow2 *image = flushed;

	flushed = NULL; /* in the first sync */
	if (image) {
		assert_int_equal(qcow2_zone_reset(image, 1), 0);
		assert_int_equal(qcow2_zone_reset(image, 0), 0);
		put(image, 0, 4096, 2);
		qcow2_wp_advance(image, 0, 4096);
		put(image, 2 * ZONE, 8192, 3);
		qcow2_wp_advance(image, 2, 2 * ZONE + 8192);
	}
	return ram_fdatasync(f);
}

static void what_came_during_a_flush_survives_a_kill(void **state)
{
	struct qcow2_create_opts o = small_zoned();
	struct ramdisk *d = make_image(&o);
	struct qcow2 *q = open_in(d, adopt_dir);
	struct file_ops ops = *q->file->ops;

	(void)state;
	ops.fdatasync = sync_beside;
	q->file->ops = &ops;
	put(q, 0, 12288, 1);
	qcow2_wp_advance(q, 0, 12288);
	put(q, ZONE, 8192, 1);
	qcow2_wp_advance(q, 1, ZONE + 8192);
	flushed = q;
	assert_int_equal(qcow2_flush(q), 0);
	assert_null(flushed);
	kill_process(d, q);
	q = open_in(d, adopt_dir);
	if (qcow2_wp(q, 0) != 4096 || qcow2_wp(q, 1) != ZONE || qcow2_wp(q, 2) != 2 * ZONE + 8192)
		fail_msg("D7: pointers %llx %llx %llx: %s", (unsigned long long)qcow2_wp(q, 0),
			 (unsigned long long)qcow2_wp(q, 1), (unsigned long long)qcow2_wp(q, 2),
			 notice);
	expect(q, 0, 4096, 2);
	expect(q, 2 * ZONE, 8192, 3);
	assert_int_equal(qcow2_close(q), 0);
	expect_sound(d, 0);
	ram_free(d);
}

/* --- hostile shadows --- */

static void every_flipped_bit_is_harmless(void **state)
{
	uint8_t *shadow;
	char path[256];
	struct ramdisk *d = killed(&shadow, path);
	const struct shadow_head *h = (void *)shadow;
	const size_t wps = sizeof(*h), log = wps + ZONES * 8, len = shadow_bytes(ZONES);
	const size_t first = log + shadow_first(h->log) * sizeof(struct shadow_entry);
	const size_t used = first + shadow_count(h->log) * sizeof(struct shadow_entry);
	unsigned int seen[3] = { 0 };

	(void)state;
	assert_true(shadow_count(h->log) >= 5);
	for (size_t bit = 0; bit < 8 * used; bit++) {
		int was;

		if (bit == 8 * log) /* the entries before this one were dropped */
			bit = 8 * first;
		shadow[bit / 8] ^= 1 << bit % 8;
		put_file(path, shadow, len);
		shadow[bit / 8] ^= 1 << bit % 8;
		was = adopt_copy(d);
		seen[was + 1]++;
		/* A pointer carries no sum: one moved within what is mapped cannot be told. */
		if (was < 0 && (bit / 8 < wps || bit / 8 >= log))
			fail_msg("bit %zu of byte %zu does harm", bit % 8, bit / 8);
	}
	print_message("ignored %u, taken %u, pointer moved %u\n", seen[1], seen[2], seen[0]);
	assert_true(seen[1] > 8 * (used - first) - 64 && seen[0] < 8 * ZONES);
	free(shadow);
	ram_free(d);
}

static const uint64_t bounds[] = {
	0,	    1,		 2,
	3,	    511,	 512,
	4095,	    4096,	 8192,
	12288,	    16384,	 20480,
	32768,	    ZONE - 4096, ZONE,
	ZONE + 512, 2 * ZONE,	 9 * ZONE,
	MIB - 4096, MIB,	 1ull << 31,
	1ull << 32, 1ull << 40,	 1ull << 56,
	1ull << 59, 1ull << 63,	 UINT64_MAX - 4095,
	UINT64_MAX,
};

/* A shadow with right sums: the image stays sound, and what it does not speak of stays as it was. */
static void try_forged(const struct ramdisk *d, const char *path, uint8_t *shadow, size_t len)
{
	struct ramdisk *copy = ram_copy(d);
	struct qcow2 *q;

	put_file(path, shadow, len);
	q = open_in(copy, adopt_dir);
	if (qcow2_wp(q, 9) == 9 * ZONE + 4096 && !strstr(notice, "9 zones"))
		expect(q, 9 * ZONE, 4096, 9);
	put(q, 12 * ZONE, CAP, 4);
	assert_int_equal(qcow2_close(q), 0);
	expect_no_corruption(copy, true);
	ram_free(copy);
}

static void every_field_with_every_boundary_is_harmless(void **state)
{
	uint8_t *shadow, *forged;
	char path[256];
	struct ramdisk *d = killed(&shadow, path);
	const size_t len = shadow_bytes(ZONES);
	const uint64_t word = ((struct shadow_head *)shadow)->log;

	(void)state;
	forged = malloc(len);
	for (uint32_t i = shadow_first(word); i < (uint32_t)word; i++)
		for (unsigned int field = 0; field < 5; field++)
			for (size_t b = 0; b < sizeof(bounds) / sizeof(bounds[0]); b++) {
				struct shadow_entry *e;

				memcpy(forged, shadow, len);
				e = shadow_entry(shadow_log(forged, ZONES), i);
				if (field == 0)
					e->kind = bounds[b];
				else if (field == 1)
					e->zone = bounds[b] > 4096 ? bounds[b] / ZONE : bounds[b];
				else
					(&e->off)[field - 2] = bounds[b];
				e->sum = shadow_entry_sum(e, i);
				try_forged(d, path, forged, len);
			}
	for (uint32_t z = 0; z < 4; z++)
		for (size_t b = 0; b < sizeof(bounds) / sizeof(bounds[0]); b++) {
			memcpy(forged, shadow, len);
			shadow_wps(forged)[z] = bounds[b];
			try_forged(d, path, forged, len);
		}
	for (size_t at = 8; at < sizeof(struct shadow_head); at += 4)
		for (size_t b = 0; b < sizeof(bounds) / sizeof(bounds[0]); b++) {
			const uint32_t value = bounds[b];
			struct shadow_head *h = (void *)forged;

			memcpy(forged, shadow, len);
			memcpy(forged + at, &value, sizeof(value));
			if (at < offsetof(struct shadow_head, sum))
				h->sum = shadow_head_sum(h);
			try_forged(d, path, forged, len);
		}
	free(forged);
	free(shadow);
	ram_free(d);
}

/* A map entry that names any cluster of the file: those in use are not to be had. */
static void no_cluster_in_use_can_be_claimed(void **state)
{
	uint8_t *shadow;
	char path[256];
	struct ramdisk *d = killed(&shadow, path);
	const size_t len = shadow_bytes(ZONES);
	const uint32_t first = shadow_first(((struct shadow_head *)shadow)->log);
	struct shadow_entry *e = shadow_entry(shadow_log(shadow, ZONES), first);

	(void)state;
	assert_int_equal(e->kind, SHADOW_MAP);
	for (uint64_t host = 0; host < d->size + 8192; host += 4096)
		for (uint64_t n = 1; n <= 12; n += 11) {
			e->host = host;
			e->len = n * 4096;
			e->sum = shadow_entry_sum(e, first);
			try_forged(d, path, shadow, len);
		}
	free(shadow);
	ram_free(d);
}

static void a_file_of_another_kind_is_ignored(void **state)
{
	const size_t len = shadow_bytes(ZONES);
	uint8_t *shadow;
	char path[256], to[300];
	struct ramdisk *d = killed(&shadow, path);

	(void)state;
	for (size_t cut = 0; cut < 1024; cut += 8) {
		put_file(path, shadow, cut);
		assert_int_equal(adopt_copy(d), 0);
	}
	put_file(path, shadow, len - 1);
	assert_int_equal(adopt_copy(d), 0);
	put_file(path, shadow, len);
	chmod(path, 0644);
	assert_int_equal(adopt_copy(d), 0);
	snprintf(to, sizeof(to), "%s.else", path);
	put_file(to, shadow, len);
	assert_int_equal(symlink(to, path), 0);
	assert_int_equal(adopt_copy(d), 0);
	assert_int_equal(link(to, path), 0);
	assert_int_equal(adopt_copy(d), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(adopt_copy(d), 0);
	put_file(path, shadow, len); /* and this is the one */
	assert_int_equal(adopt_copy(d), 1);
	free(shadow);
	ram_free(d);
}

int main(void)
{
#define t(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		t(a_kill_at_any_store_or_call_loses_nothing),
		t(small_clusters_and_growing_tables_too),
		t(an_adoption_may_need_tables),
		t(what_was_adopted_is_told),
		t(a_power_cut_in_an_adoption_mixes_nothing),
		t(a_clean_close_leaves_no_shadow),
		t(a_failed_open_leaves_no_shadow),
		t(another_writer_in_between_makes_it_void),
		t(what_another_image_says_is_ignored),
		t(an_extension_of_16_bytes_grows),
		t(without_a_tmpfs_there_is_a_warning_and_no_shadow),
		t(a_full_log_is_flushed),
		t(a_failed_flush_and_then_a_kill_loses_nothing),
		t(what_came_during_a_flush_survives_a_kill),
		t(every_flipped_bit_is_harmless),
		t(every_field_with_every_boundary_is_harmless),
		t(no_cluster_in_use_can_be_claimed),
		t(a_file_of_another_kind_is_ignored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
