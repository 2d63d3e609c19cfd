// SPDX-License-Identifier: MIT
/* See daemon.h. Single threaded while it forks. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "daemon.h"

int rig_slowness(void)
{
#if defined(__SANITIZE_THREAD__)
	return 10;
#elif defined(__SANITIZE_ADDRESS__)
	return 4;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
	return 10;
#else
	return 1;
#endif
#else
	return 1;
#endif
}

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

/* Those to remove at exit: an assertion that fails in a setup skips its teardown. */
static struct rig *living[8];

static void end_all(void)
{
	size_t i;

	for (i = 0; i < sizeof(living) / sizeof(living[0]); i++)
		if (living[i])
			rig_end(living[i]);
}

/* Remembers R; one that was not ended since its last rig_init() is ended first. */
static void remember(struct rig *r)
{
	static bool armed;
	size_t i, slot = 0;

	if (!armed)
		atexit(end_all);
	armed = true;
	for (i = 0; i < sizeof(living) / sizeof(living[0]); i++) {
		if (living[i] == r)
			rig_end(r);
		if (!living[i])
			slot = i;
	}
	living[slot] = r;
}

static const char *program(const char *name)
{
	const char *path = getenv(name);

	if (!path || !*path) {
		fprintf(stderr, "SKIP: needs $%s (run through ctest)\n", name);
		exit(77);
	}
	return path;
}

void rig_init(struct rig *r)
{
	const char *tmp = getenv("TMPDIR");

	remember(r);
	memset(r, 0, sizeof(*r));
	program("ZNSD");
	program("ZNSIMG");
	snprintf(r->dir, sizeof(r->dir), "%.40s/znsd-test.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(r->dir)) {
		perror(r->dir);
		exit(1);
	}
	snprintf(r->img, sizeof(r->img), "%s/disk.qcow2", r->dir);
	snprintf(r->log, sizeof(r->log), "%s/log", r->dir);
	snprintf(r->shadow, sizeof(r->shadow), "/dev/shm/znsd-test.XXXXXX");
	if (!mkdtemp(r->shadow))
		snprintf(r->shadow, sizeof(r->shadow), "none");
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void rig_lose_shadows(struct rig *r)
{
	if (r->shadow[0] != '/')
		return;
	nftw(r->shadow, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	assert_int_equal(mkdir(r->shadow, 0700), 0);
}

void rig_end(struct rig *r)
{
	size_t i;

	if (r->pid)
		rig_stop(r, SIGKILL, 10000, NULL);
	if (r->dir[0])
		nftw(r->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	if (r->shadow[0] == '/')
		nftw(r->shadow, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	r->shadow[0] = 0;
	r->dir[0] = 0;
	for (i = 0; i < sizeof(living) / sizeof(living[0]); i++)
		if (living[i] == r)
			living[i] = NULL;
}

/* In the child: both outputs go to the log. */
static void redirect(const struct rig *r)
{
	int fd = open(r->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	if (fd < 0)
		_exit(126);
	dup2(fd, 1);
	dup2(fd, 2);
	close(fd);
}

int rig_run(struct rig *r, const char *const argv[])
{
	const char *path = strchr(argv[0], '/') ? argv[0] : getenv(argv[0]);
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (!pid) {
		redirect(r);
		execvp(path ? path : argv[0], (char *const *)argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int rig_create(struct rig *r, const char *img, const char *options)
{
	const char *argv[] = { "ZNSIMG", "create", "-f", "qcow2", img, "-o", options, NULL };

	return rig_run(r, argv);
}

int rig_check(struct rig *r, const char *img)
{
	const char *argv[] = { "ZNSIMG", "check", img, NULL };

	return rig_run(r, argv);
}

/* Its last 8 KiB: what a sanitizer says fits, years of events do not. */
static void print_log(const struct rig *r)
{
	char line[512];
	FILE *f = fopen(r->log, "r");

	if (f && fseek(f, -8192, SEEK_END))
		rewind(f);
	while (f && fgets(line, sizeof(line), f))
		fprintf(stderr, "log: %s", line);
	if (f)
		fclose(f);
}

static bool has(const char *const args[], const char *name)
{
	size_t len = strlen(name);

	for (; *args; args++)
		if (!strncmp(*args, name, len) && ((*args)[len] == 0 || (*args)[len] == '='))
			return true;
	return false;
}

/* An image that says nothing of its blocks gets small ones: tests count in them. */
static const char *small_blocks(const char *arg)
{
	static char copy[RIG_ARGS][256];
	static int n;

	if (*arg == '-' || !strstr(arg, ".qcow2") || strstr(arg, ",lba="))
		return arg;
	snprintf(copy[n], sizeof(copy[n]), "%s,lba=512", arg);
	return copy[n++];
}

static void child(const struct rig *r, const char *const args[], int ready)
{
	const char *argv[RIG_ARGS];
	char path[96], fd[16];
	int n = 0;

	snprintf(path, sizeof(path), "%s/port", r->dir);
	snprintf(fd, sizeof(fd), "%d", ready);
	argv[n++] = program("ZNSD");
	argv[n++] = "--port-file";
	argv[n++] = path;
	argv[n++] = "--ready-fd";
	argv[n++] = fd;
	if (!has(args, "--listen")) {
		argv[n++] = "--listen";
		argv[n++] = "127.0.0.1:0";
	}
	if (!has(args, "--nqn")) {
		argv[n++] = "--nqn";
		argv[n++] = RIG_NQN;
	}
	if (!has(args, "--shadow")) {
		argv[n++] = "--shadow";
		argv[n++] = r->shadow;
	}
	while (*args && n < RIG_ARGS - 1)
		argv[n++] = small_blocks(*args++);
	argv[n] = NULL;
	redirect(r);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execv(argv[0], (char *const *)argv);
	_exit(127);
}

/* The first number in the port file, after the last colon of its line if there is one. */
static int read_ports(struct rig *r)
{
	char path[96], line[256], *p;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/port", r->dir);
	f = fopen(path, "r");
	if (!f)
		return -errno;
	n = fread(r->ports, 1, sizeof(r->ports) - 1, f);
	r->ports[n] = 0;
	fclose(f);
	snprintf(line, sizeof(line), "%.255s", r->ports);
	line[strcspn(line, "\n")] = 0;
	p = strrchr(line, ':');
	snprintf(r->port, sizeof(r->port), "%.15s", p ? p + 1 : line);
	return *r->port ? 0 : -EINVAL;
}

int rig_start(struct rig *r, const char *const args[], int *status)
{
	int pipefd[2], got, st;
	struct pollfd pfd;
	char byte;

	if (pipe(pipefd))
		return -errno;
	fcntl(pipefd[0], F_SETFD, FD_CLOEXEC);
	fflush(NULL);
	r->pid = fork();
	if (!r->pid)
		child(r, args, pipefd[1]);
	close(pipefd[1]);
	pfd = (struct pollfd){ .fd = pipefd[0], .events = POLLIN };
	got = poll(&pfd, 1, 20000 * rig_slowness());
	if (got > 0)
		got = read(pipefd[0], &byte, 1);
	close(pipefd[0]);
	if (got > 0)
		return read_ports(r);
	st = rig_stop(r, 0, got < 0 ? 0 : 5000, NULL);
	if (status)
		*status = st;
	else
		print_log(r);
	return -ECHILD;
}

int rig_serve(struct rig *r, const char *img)
{
	const char *args[] = { img, NULL };

	return rig_start(r, args, NULL);
}

int rig_stop(struct rig *r, int sig, int ms, int *took)
{
	uint64_t start = now_ms();
	bool late = false;
	int status;
	pid_t pid;

	if (sig)
		kill(r->pid, sig);
	while ((pid = waitpid(r->pid, &status, WNOHANG)) == 0) {
		if (!late && now_ms() - start > (uint64_t)ms) {
			kill(r->pid, SIGKILL);
			late = true;
		}
		usleep(2000);
	}
	if (took)
		*took = now_ms() - start;
	r->pid = 0;
	if (late)
		return -ETIMEDOUT;
	if (pid < 0 || !WIFEXITED(status))
		return -1;
	if (WEXITSTATUS(status))
		print_log(r);
	return WEXITSTATUS(status);
}

void rig_restart(struct rig *r, const char *img)
{
	if (r->pid)
		assert_int_equal(rig_stop(r, SIGTERM, 10000 * rig_slowness(), NULL), 0);
	assert_int_equal(rig_serve(r, img), 0);
}

void rig_attach(struct rig *r, struct host_ctrl *c, uint16_t nr_io)
{
	assert_int_equal(host_attach(c, "127.0.0.1", r->port, RIG_NQN, NULL, NULL, nr_io, 0), 0);
}
