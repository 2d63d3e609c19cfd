/* SPDX-License-Identifier: MIT */
/*
 * What makes znsd-cut of znsd: the linker gives every call of file_posix() to __wrap_file_posix()
 * (ld, --wrap), which puts a volatile cache over the file. SIGUSR1, or a count of the changes and
 * syncs of the images, cuts the power: of what is not synced a part reaches the image file, and the
 * process ends at once with status 99 and a line on stderr. So it does by SIGKILL, and then nothing
 * that is not synced reaches it.
 *
 * ZNSD_CUT in the environment says how, a list of name=value: mode=none, all or random (random),
 * seed= (0), after= and syncs=, at which change or sync, or sync alone (0: only by the signal),
 * late= (0), how many syncs after the signal, but within a second; sync_us= (0), the time a sync
 * takes; plant=, a mistake of the ring (ring.h).
 *
 * Threads: one of our own, made before main(), waits for the signal; all others have it blocked. A
 * cut keeps the locks of all files until the end of the process.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cutfile.h"
#include "ring.h"

#define STATUS_CUT   99
#define STATUS_USAGE 98
#define MAX_FILES    64

int __real_file_posix(const char *path, unsigned int flags, struct file **out);
int __wrap_file_posix(const char *path, unsigned int flags, struct file **out);

static struct {
	enum cut_mode mode;
	uint64_t seed;
	atomic_long after, syncs;
	long late;
	pthread_mutex_t lock; /* protects the list of files; a cut never gives it back */
	struct file *file[MAX_FILES];
	unsigned int nr_files;
	const struct file_ops *ops; /* those of cutfile.c, but for close */
	struct file_ops ops_ours;
} power = { .mode = CUT_RANDOM, .lock = PTHREAD_MUTEX_INITIALIZER };

static void cut_all(const char *why)
{
	struct cut_result res;
	char line[256];
	int n, err = 0;

	pthread_mutex_lock(&power.lock);
	for (unsigned int i = 0; i < power.nr_files; i++) {
		err |= cut_power(power.file[i], power.mode, power.seed + i, true, &res);
		n = snprintf(line, sizeof(line),
			     "cut: %s: of %zu changes (%llu sectors) since the last sync %zu are "
			     "kept, %zu torn (%llu sectors)\n",
			     why, res.pending, (unsigned long long)res.sectors, res.kept, res.torn,
			     (unsigned long long)res.sectors_kept);
		if (write(2, line, n) != n)
			break;
	}
	_exit(err ? 1 : STATUS_CUT);
}

static bool counted_down(atomic_long *left)
{
	return atomic_load(left) > 0 && atomic_fetch_sub(left, 1) == 1;
}

static void count(bool sync)
{
	if (counted_down(&power.after) || (sync && counted_down(&power.syncs)))
		cut_all(sync ? "at a sync" : "at a change");
}

static void *wait_for_signal(void *arg)
{
	sigset_t all, usr1;
	int sig;

	(void)arg;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	while (sigwait(&usr1, &sig))
		;
	if (power.late) {
		atomic_store(&power.syncs, power.late);
		sleep(1);
	}
	cut_all("SIGUSR1");
	return NULL;
}

static void usage(const char *what)
{
	fprintf(stderr, "ZNSD_CUT: %s\n", what);
	_exit(STATUS_USAGE);
}

static void set_option(const char *name, const char *value)
{
	static const char *const modes[] = { "none", "all", "random" };
	char *end;
	unsigned long long number = strtoull(value, &end, 0);

	if (!strcmp(name, "mode")) {
		for (unsigned int i = 0; i < 3; i++)
			if (!strcmp(value, modes[i])) {
				power.mode = i;
				return;
			}
		usage(value);
	}
	if (!strcmp(name, "plant")) {
		if (!cut_set_ring_plant(value))
			usage(value);
		return;
	}
	if (!*value || *end)
		usage(value);
	if (!strcmp(name, "seed"))
		cut_set_ring_seed(power.seed = number);
	else if (!strcmp(name, "after"))
		atomic_store(&power.after, (long)number);
	else if (!strcmp(name, "syncs"))
		atomic_store(&power.syncs, (long)number);
	else if (!strcmp(name, "late"))
		power.late = (long)number;
	else if (!strcmp(name, "sync_us"))
		cut_set_sync_time(number);
	else
		usage(name);
}

/* Before main(), so that every thread of the daemon has the signal blocked. */
__attribute__((constructor)) static void power_init(void)
{
	const char *env = getenv("ZNSD_CUT");
	char *list = env ? strdup(env) : NULL, *save, *item, *value;
	pthread_t thread;
	sigset_t all, old;

	for (item = list ? strtok_r(list, ",", &save) : NULL; item;
	     item = strtok_r(NULL, ",", &save)) {
		value = strchr(item, '=');
		if (!value)
			usage(item);
		*value = 0;
		set_option(item, value + 1);
	}
	free(list);
	cut_set_hook(count);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&thread, NULL, wait_for_signal, NULL))
		usage("no thread could be made");
	sigaddset(&old, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void forget_and_close(struct file *f)
{
	pthread_mutex_lock(&power.lock);
	for (unsigned int i = 0; i < power.nr_files; i++)
		if (power.file[i] == f)
			power.file[i] = power.file[--power.nr_files];
	power.ops->close(f);
	pthread_mutex_unlock(&power.lock);
}

static void remember(struct file *f)
{
	pthread_mutex_lock(&power.lock);
	if (power.nr_files == MAX_FILES)
		usage("too many images");
	power.ops = f->ops;
	power.ops_ours = *f->ops;
	power.ops_ours.close = forget_and_close;
	f->ops = &power.ops_ours;
	power.file[power.nr_files++] = f;
	pthread_mutex_unlock(&power.lock);
}

int __wrap_file_posix(const char *path, unsigned int flags, struct file **out)
{
	struct file *under;
	int err = __real_file_posix(path, flags & ~(FILE_DIRECT | FILE_DIRECT_WRITES), &under);

	if (!err && flags & FILE_RDONLY) {
		*out = under;
		return 0;
	}
	if (err)
		return err;
	err = cut_file(under, flags & (FILE_UNSAFE | FILE_DIRECT | FILE_DIRECT_WRITES), out);
	if (err) {
		file_close(under);
		return err;
	}
	remember(*out);
	return 0;
}
