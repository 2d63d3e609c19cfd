/* SPDX-License-Identifier: MIT */
/*
 * znsd: command line, images, sockets, signals. The only file that uses every room.
 *
 *	options -> sockets bound -> images opened -> namespaces -> loops run -> serving
 *	signal -> sockets closed, commands in flight ended, connections closed (tcp_shutdown)
 *	       -> loops stopped -> workers ended -> namespaces flushed and closed (tgt_free) -> exit
 *
 * Threads: main opens and closes everything, and sleeps in sigwait() in between; one thread per
 * loop; the workers. All threads block signals; main receives them by sigwait(). During shutdown
 * they have their default action again, so that a second signal ends the program at once.
 *
 * Exit status: 0; 1 if something failed; 2 for a wrong command line; with --run, the command's.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "loop.h"
#include "notify.h"
#include "options.h"
#include "shadow_dir.h"
#include "store.h"
#include "target.h"
#include "tcp.h"
#include "text.h"
#include "version.h"
#include "work.h"
#include "zns.h"

#define WORKERS 4
#define ERRLEN	1024

static_assert((int)CACHE_WRITEBACK == (int)STORE_WRITEBACK &&
		      (int)CACHE_WRITETHROUGH == (int)STORE_WRITETHROUGH &&
		      (int)CACHE_NONE == (int)STORE_NONE &&
		      (int)CACHE_UNSAFE == (int)STORE_UNSAFE && (int)CACHE_AUTO == (int)STORE_AUTO,
	      "the cache modes of the command line are those of the store");

struct daemon {
	struct options opts;
	struct workers *workers;
	struct loop *loops[LOOP_MAX];
	pthread_t threads[LOOP_MAX];
	unsigned int nr_loops, nr_threads;
	struct tgt *tgt;
	struct tcp_server *tcp;
	struct tcp_listener *listeners[OPTIONS_MAX_LISTEN];
	char nqn[TGT_NQN_LEN + 1]; /* of the subsystem of images that name none */
	sem_t drained;
	pid_t child; /* of --run; 0: none */
	int child_status;
	const char *shadow_dir; /* NULL: none */
	char shadow_buf[SHADOW_DIR_LEN];
	char err[ERRLEN];
};

static void *loop_thread(void *arg)
{
	loop_run(arg);
	return NULL;
}

static_assert(OPTIONS_THREADS <= LOOP_MAX, "");

static int make_loops(struct daemon *d)
{
	d->workers = workers_new(WORKERS);
	if (!d->workers)
		return -ENOMEM;
	for (; d->nr_loops < d->opts.threads; d->nr_loops++) {
		d->loops[d->nr_loops] = loop_new(d->workers);
		if (!d->loops[d->nr_loops])
			return -ENOMEM;
		loop_busy_poll(d->loops[d->nr_loops], d->opts.busy_poll);
	}
	return 0;
}

/*
 * ZASL belongs to the controller, and Linux 6.12 ignores it above its multipath head: an append
 * that is refused there loses data. So appends up to MDTS are accepted, and a warning says that the
 * image's limit is not applied if a user chose it, that is if it is below this default.
 */
#define DEFAULT_APPEND_BYTES (64u << 10)

static void log_namespace(const struct image_opt *image, struct tgt_ns *ns)
{
	char open[16] = "no", active[16] = "no";
	struct zns_summary s;

	zns_ns_summary(ns, &s);
	if (s.max_open)
		snprintf(open, sizeof(open), "%u", s.max_open);
	if (s.max_active)
		snprintf(active, sizeof(active), "%u", s.max_active);
	log_info("%s: %u zones of %llu MiB (capacity %llu MiB), %u empty, %u closed, %u full, "
		 "limits "
		 "%s open / %s active, lba %u%s",
		 image->path, s.nr_zones, (unsigned long long)s.zone_size >> 20,
		 (unsigned long long)s.zone_capacity >> 20, s.empty, s.closed, s.full, open, active,
		 s.lba_size, image->read_only ? ", read only" : "");
	if (s.max_append && s.max_append < DEFAULT_APPEND_BYTES)
		log_warn("%s: its max_append_bytes of %u cannot be told to a host: appends up to "
			 "%u are accepted",
			 image->path, s.max_append, TGT_MAX_TRANSFER);
}

/* The subsystem of IMAGE, created with its allowed hosts when it is first named. NULL: logged. */
static struct tgt_subsys *image_subsys(struct daemon *d, const struct image_opt *image,
				       const struct tgt_ns *ns)
{
	const char *nqn = image->nqn ? image->nqn : d->opts.nqn;
	struct tgt_subsys *subsys;
	char uuid[UUID_TEXT_LEN];

	if (!nqn && !d->nqn[0]) {
		uuid_text(ns->uuid, uuid);
		snprintf(d->nqn, sizeof(d->nqn), "nqn.2014-08.org.nvmexpress:uuid:%s", uuid);
	}
	if (!nqn)
		nqn = d->nqn;
	subsys = tgt_subsys_get(d->tgt, nqn, d->err, ERRLEN);
	for (unsigned int i = 0; subsys && i < d->opts.nr_hosts; i++)
		if (tgt_subsys_allow_host(subsys, d->opts.hosts[i]))
			return NULL;
	if (subsys && !d->nqn[0])
		snprintf(d->nqn, sizeof(d->nqn), "%s", nqn);
	return subsys;
}

static int open_image(struct daemon *d, const struct image_opt *image)
{
	const struct zns_opts zopts = {
		.nsid = image->nsid,
		.lba_size = image->lba,
		.read_only = image->read_only,
		.writethrough = image->cache == CACHE_WRITETHROUGH,
	};
	const struct store_qcow2_opts sopts = {
		.read_only = image->read_only,
		.cache = (enum store_cache)image->cache,
		.shadow_dir = d->shadow_dir,
	};
	struct tgt_subsys *subsys;
	char why[ERRLEN / 2];
	struct store *store;
	struct tgt_ns *ns;

	if (store_qcow2_open(image->path, &sopts, &store, d->err, ERRLEN))
		return -1;
	if (zns_ns_new(store, &zopts, d->loops[0], &ns, why, sizeof(why))) {
		snprintf(d->err, ERRLEN, "%.*s: %s", ERRLEN / 3, image->path, why);
		store->ops->close(store);
		return -1;
	}
	subsys = image_subsys(d, image, ns);
	if (!subsys || tgt_ns_add(subsys, ns, why, sizeof(why))) {
		if (subsys)
			snprintf(d->err, ERRLEN, "%.*s: %s", ERRLEN / 3, image->path, why);
		ns->set->close(ns);
		return -1;
	}
	log_namespace(image, ns);
	if (image->cache == CACHE_UNSAFE)
		log_warn("%s: cache=unsafe, a power cut loses data that was flushed", image->path);
	return 0;
}

/* Writes the ports, one per line, in the order of --listen. The file is replaced atomically. */
static int write_port_file(struct daemon *d)
{
	const char *path = d->opts.port_file;
	char temp[4096];
	FILE *f;
	int fd;

	snprintf(temp, sizeof(temp), "%s.XXXXXX", path);
	fd = mkostemp(temp, O_CLOEXEC);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f)
		goto failed;
	for (unsigned int i = 0; i < d->opts.nr_listen; i++)
		fprintf(f, "%s\n", tcp_listener_port(d->listeners[i])->trsvcid);
	fchmod(fd, 0644);
	if (fclose(f) || rename(temp, path)) {
		unlink(temp);
		goto failed;
	}
	return 0;

failed:
	snprintf(d->err, ERRLEN, "%s: %s", path, strerror(errno));
	return -1;
}

static int start_listening(struct daemon *d)
{
	d->tcp = tcp_new(d->tgt, d->loops, d->nr_loops, NULL);
	if (!d->tcp) {
		snprintf(d->err, ERRLEN, "out of memory");
		return -1;
	}
	for (unsigned int i = 0; i < d->opts.nr_listen; i++)
		if (tcp_listen(d->tcp, d->opts.listen[i].addr, d->opts.listen[i].port,
			       &d->listeners[i], d->err, ERRLEN))
			return -1;
	return d->opts.port_file ? write_port_file(d) : 0;
}

/* The address by which a host on this machine reaches PORT. */
static const char *reachable(const struct tgt_port *port)
{
	if (!strcmp(port->traddr, "0.0.0.0"))
		return "127.0.0.1";
	if (!strcmp(port->traddr, "::"))
		return "::1";
	return port->traddr;
}

static void log_serving(struct daemon *d)
{
	const struct tgt_port *port = tcp_listener_port(d->listeners[0]);

	for (unsigned int i = 0; i < d->opts.nr_listen; i++) {
		const struct tgt_port *p = tcp_listener_port(d->listeners[i]);
		bool v6 = strchr(p->traddr, ':');

		log_info("listening on %s%s%s:%s%s", v6 ? "[" : "", p->traddr, v6 ? "]" : "",
			 p->trsvcid,
			 !strncmp(p->traddr, "127.", 4) || !strcmp(p->traddr, "::1")
				 ? " (loopback only; --listen to change)"
				 : "");
	}
	log_info("connect with: nvme connect -t tcp -a %s -s %s -n %s", reachable(port),
		 port->trsvcid, d->nqn);
	log_info("discover with: nvme discover -t tcp -a %s -s %s", reachable(port), port->trsvcid);
}

static int start_threads(struct daemon *d)
{
	for (; d->nr_threads < d->nr_loops; d->nr_threads++)
		if (pthread_create(&d->threads[d->nr_threads], NULL, loop_thread,
				   d->loops[d->nr_threads])) {
			snprintf(d->err, ERRLEN, "no thread could be made");
			return -1;
		}
	return 0;
}

/* Sets the environment of the command of --run. */
static void export_names(struct daemon *d)
{
	const struct tgt_port *port = tcp_listener_port(d->listeners[0]);
	char hostnqn[80], uuid[UUID_TEXT_LEN];
	uint8_t id[16] = { 0 };

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		id[0] = 1;
	id[6] = (id[6] & 0x0f) | 0x40; /* RFC 4122, version 4 */
	id[8] = (id[8] & 0x3f) | 0x80;
	uuid_text(id, uuid);
	snprintf(hostnqn, sizeof(hostnqn), "nqn.2014-08.org.nvmexpress:uuid:%s", uuid);
	setenv("traddr", reachable(port), 1);
	setenv("trsvcid", port->trsvcid, 1);
	setenv("subnqn", d->nqn, 1);
	setenv("hostnqn", d->opts.nr_hosts ? d->opts.hosts[0] : hostnqn, 1);
}

static int start_command(struct daemon *d)
{
	sigset_t none;

	export_names(d);
	d->child = fork();
	if (d->child < 0) {
		d->child = 0;
		snprintf(d->err, ERRLEN, "--run: %s", strerror(errno));
		return -1;
	}
	if (d->child)
		return 0;
	sigemptyset(&none);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	unsetenv("NOTIFY_SOCKET"); /* it is not the service */
	sigprocmask(SIG_SETMASK, &none, NULL);
	execl("/bin/sh", "sh", "-c", d->opts.run, (char *)NULL);
	_exit(127);
}

/* The service manager, if there is one; a daemon that it does not hear serves all the same. */
static void tell_manager(const char *state)
{
	int err = notify(state);

	if (err)
		log_warn("the service manager at %s cannot be told: %s", getenv("NOTIFY_SOCKET"),
			 strerror(-err));
}

/* Tells that the drive can be connected whoever asked to be told. */
static int tell_ready(struct daemon *d)
{
	const struct tgt_port *port = tcp_listener_port(d->listeners[0]);
	char state[TGT_NQN_LEN + 512];

	snprintf(state, sizeof(state), "READY=1\nSTATUS=serving %s on %s port %s", d->nqn,
		 port->traddr, port->trsvcid);
	tell_manager(state);
	if (d->opts.ready_fd < 0)
		return 0;
	if (write(d->opts.ready_fd, "\n", 1) != 1) {
		snprintf(d->err, ERRLEN, "--ready-fd %d: %s", d->opts.ready_fd, strerror(errno));
		return -1;
	}
	close(d->opts.ready_fd);
	return 0;
}

/* Logs a refusal as one line: its sentence may contain line breaks. */
static void log_refusal(char *err)
{
	for (char *p = err; (p = strchr(p, '\n'));)
		*p = ' ';
	log_err("%s", err);
}

/* Sleeps until a signal asks to end, or the command of --run exits, which it reaps. */
static void serve(struct daemon *d, const sigset_t *set)
{
	for (;;) {
		int sig, status;

		if (sigwait(set, &sig))
			continue;
		if (sig != SIGCHLD) {
			log_info("%s: draining", sig == SIGINT ? "SIGINT" : "SIGTERM");
			if (d->child)
				kill(d->child, SIGTERM);
			return;
		}
		if (d->child && waitpid(d->child, &status, WNOHANG) == d->child) {
			d->child_status =
				WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
			return;
		}
	}
}

static void on_drained(void *arg)
{
	struct daemon *d = arg;

	sem_post(&d->drained);
}

/* Undoes start(), however far that came. 0, or 1 if a namespace could not be written. */
static int stop(struct daemon *d, const sigset_t *set)
{
	int failed;

	if (d->nr_threads && d->nr_threads == d->nr_loops && d->tcp) {
		tell_manager("STOPPING=1");
		/* From here on a second signal ends the process. */
		pthread_sigmask(SIG_UNBLOCK, set, NULL);
		tcp_shutdown(d->tcp, on_drained, d);
		while (sem_wait(&d->drained) && errno == EINTR)
			;
	}
	for (unsigned int i = 0; i < d->nr_threads; i++)
		loop_stop(d->loops[i]);
	for (unsigned int i = 0; i < d->nr_threads; i++)
		pthread_join(d->threads[i], NULL);
	if (d->tcp)
		tcp_free(d->tcp);
	workers_free(d->workers);
	failed = tgt_free(d->tgt) ? 1 : 0;
	for (unsigned int i = 0; i < d->nr_loops; i++)
		loop_free(d->loops[i]);
	return failed;
}

static int start(struct daemon *d)
{
	d->tgt = tgt_new();
	if (!d->tgt || make_loops(d)) {
		snprintf(d->err, ERRLEN, "out of memory or threads");
		return -1;
	}
	tgt_add_command_set(d->tgt, &nvm_command_set);
	tgt_add_command_set(d->tgt, &zns_command_set);
	if (start_listening(d)) /* before an image is opened, which may change it */
		return -1;
	d->shadow_dir = shadow_dir(d->opts.shadow, d->shadow_buf);
	for (unsigned int i = 0; i < d->opts.nr_images; i++)
		if (open_image(d, &d->opts.images[i]))
			return -1;
	if (start_threads(d))
		return -1;
	log_serving(d);
	if (tell_ready(d))
		return -1;
	return d->opts.run ? start_command(d) : 0;
}

int main(int argc, char **argv)
{
	static struct daemon d;
	sigset_t set;
	int failed;

	if (options_parse(&d.opts, argc, argv, d.err, ERRLEN)) {
		log_err("%s", d.err);
		options_free(&d.opts);
		return 2;
	}
	if (d.opts.help || d.opts.version) {
		if (d.opts.help)
			options_help(stdout);
		else
			printf("znsd %s\n", znsd_version);
		return fflush(stdout) ? 1 : 0;
	}
	log_level(d.opts.log_level);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file-size limit is a full disk, not our end */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	sem_init(&d.drained, 0, 0);

	failed = start(&d) ? 1 : 0;
	if (failed)
		log_refusal(d.err);
	else
		serve(&d, &set);
	failed |= stop(&d, &set);
	options_free(&d.opts);
	return failed ? failed : d.child_status;
}
