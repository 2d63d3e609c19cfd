/*
 * uml-slirp: the network of user-mode Linux, without privileges.
 *
 *	uml-slirp KERNEL [ARG...]
 *
 * Starts the kernel with one end of a datagram socket pair as its descriptor 3
 *(vec0:transport=fd,fd=3) and serves the other end with libslirp: 10.0.2.2 in the guest is this
 *machine's loopback.  Frames for any other address are dropped.  Ends with the kernel, and returns
 *its status.
 *
 * (1) The descriptor given to the kernel is non-blocking: the vector driver polls by receiving, and
 *a blocking receive would stop the whole guest. (2) MTU is the guest's too (vec0:mtu=16000, in
 *run): larger frames would be cut off. (3) Frames that do not fit into the socket are dropped, as
 *on any wire; TCP sends them again.
 *
 * One thread.  Signals only end it: TERM, INT and HUP go on to the kernel.  PIPE, of a write to a
 * connection that the other end has reset (libslirp does not ask for EPIPE), is ignored.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libslirp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MTU 16000

struct timer {
	SlirpTimerCb cb;
	void *opaque;
	int64_t at_ms; /* -1: not set */
	struct timer *next;
};

static struct timer *timers;
static struct pollfd *polls;
static int polls_used, polls_size;
static int wire; /* our end of the socket pair */
static pid_t kernel;
static volatile sig_atomic_t ended;

static int64_t clock_ns(void *opaque)
{
	struct timespec t;

	(void)opaque;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static ssize_t send_packet(const void *frame, size_t len, void *opaque)
{
	ssize_t sent;

	(void)opaque;
	do
		sent = send(wire, frame, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return (ssize_t)len;
}

static void guest_error(const char *message, void *opaque)
{
	(void)opaque;
	fprintf(stderr, "uml-slirp: %s\n", message);
}

static void *timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	struct timer *t = malloc(sizeof(*t));

	(void)opaque;
	if (!t)
		abort();
	*t = (struct timer){ cb, cb_opaque, -1, timers };
	timers = t;
	return t;
}

static void timer_free(void *timer, void *opaque)
{
	struct timer **p = &timers;

	(void)opaque;
	while (*p && *p != timer)
		p = &(*p)->next;
	if (*p)
		*p = (*p)->next;
	free(timer);
}

static void timer_mod(void *timer, int64_t at_ms, void *opaque)
{
	(void)opaque;
	((struct timer *)timer)->at_ms = at_ms;
}

static void timers_run(void)
{
	int64_t now = clock_ns(NULL) / 1000000;
	struct timer *t, *next;

	for (t = timers; t; t = next) {
		next = t->next;
		if (t->at_ms >= 0 && t->at_ms <= now) {
			t->at_ms = -1;
			t->cb(t->opaque);
		}
	}
}

static int timers_wait_ms(uint32_t at_most)
{
	int64_t now = clock_ns(NULL) / 1000000, wait = at_most;
	struct timer *t;

	for (t = timers; t; t = t->next)
		if (t->at_ms >= 0 && t->at_ms - now < wait)
			wait = t->at_ms > now ? t->at_ms - now : 0;
	return (int)wait;
}

static void nothing_fd(int fd, void *opaque)
{
	(void)fd;
	(void)opaque;
}

static void nothing(void *opaque)
{
	(void)opaque;
}

static int poll_add(int fd, int events, void *opaque)
{
	short e = 0;

	(void)opaque;
	if (events & SLIRP_POLL_IN)
		e |= POLLIN;
	if (events & SLIRP_POLL_OUT)
		e |= POLLOUT;
	if (events & SLIRP_POLL_PRI)
		e |= POLLPRI;
	if (polls_used == polls_size) {
		polls_size += 64;
		polls = realloc(polls, sizeof(*polls) * polls_size);
		if (!polls)
			abort();
	}
	polls[polls_used] = (struct pollfd){ .fd = fd, .events = e };
	return polls_used++;
}

static int poll_events(int i, void *opaque)
{
	short e = polls[i].revents;

	(void)opaque;
	return (e & POLLIN ? SLIRP_POLL_IN : 0) | (e & POLLOUT ? SLIRP_POLL_OUT : 0) |
	       (e & POLLPRI ? SLIRP_POLL_PRI : 0) | (e & POLLERR ? SLIRP_POLL_ERR : 0) |
	       (e & POLLHUP ? SLIRP_POLL_HUP : 0);
}

/* ARP, and IPv4 to 10.0.2.2: nothing else leaves the guest */
static int frame_allowed(const uint8_t *f, ssize_t len)
{
	if (len < 14 || f[12] != 8)
		return 0;
	if (f[13] == 6)
		return 1;
	return f[13] == 0 && len >= 34 && memcmp(f + 30, "\x0a\x00\x02\x02", 4) == 0;
}

static void wire_read(Slirp *slirp)
{
	static uint8_t frame[65536];
	ssize_t len;
	int i;

	for (i = 0; i < 256; i++) {
		len = recv(wire, frame, sizeof(frame), MSG_DONTWAIT);
		if (len <= 0)
			return;
		if (frame_allowed(frame, len))
			slirp_input(slirp, frame, (int)len);
	}
}

static void on_child(int sig)
{
	(void)sig;
	ended = 1;
}

static void on_signal(int sig)
{
	kill(kernel, sig);
}

static Slirp *slirp_start(void)
{
	static const SlirpCb calls = {
		.send_packet = send_packet,
		.guest_error = guest_error,
		.clock_get_ns = clock_ns,
		.timer_new = timer_new,
		.timer_free = timer_free,
		.timer_mod = timer_mod,
		.register_poll_fd = nothing_fd,
		.unregister_poll_fd = nothing_fd,
		.notify = nothing,
	};
	SlirpConfig config = {
		.version = 4,
		.in_enabled = true,
		.if_mtu = MTU,
		.if_mru = MTU,
		.disable_dns = true,
	};

	inet_pton(AF_INET, "10.0.2.0", &config.vnetwork);
	inet_pton(AF_INET, "255.255.255.0", &config.vnetmask);
	inet_pton(AF_INET, "10.0.2.2", &config.vhost);
	inet_pton(AF_INET, "10.0.2.15", &config.vdhcp_start);
	inet_pton(AF_INET, "10.0.2.3", &config.vnameserver);
	return slirp_new(&config, &calls, NULL);
}

static void kernel_exec(int end, char **argv)
{
	static const int handled[] = { SIGCHLD, SIGPIPE, SIGTERM, SIGINT, SIGHUP };
	size_t i;

	for (i = 0; i < sizeof(handled) / sizeof(*handled); i++)
		signal(handled[i], SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (end != 3) {
		dup2(end, 3);
		close(end);
	}
	execv(argv[0], argv);
	perror(argv[0]);
	_exit(127);
}

int main(int argc, char **argv)
{
	int ends[2], size = 4 << 20, status = 0, i, ready;
	Slirp *slirp;

	if (argc < 2 || socketpair(AF_UNIX, SOCK_DGRAM, 0, ends))
		return 2;
	for (i = 0; i < 2; i++) {
		setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		setsockopt(ends[i], SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	}
	/* keep 3 for the kernel, and ours out of it */
	wire = fcntl(ends[0], F_DUPFD_CLOEXEC, 4);
	close(ends[0]);
	fcntl(ends[1], F_SETFL, O_NONBLOCK);
	signal(SIGCHLD, on_child);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	signal(SIGHUP, on_signal);
	kernel = fork();
	if (kernel == 0)
		kernel_exec(ends[1], argv + 1);
	close(ends[1]);
	slirp = slirp_start();
	if (kernel < 0 || !slirp) {
		fprintf(stderr, "uml-slirp: cannot start\n");
		return 2;
	}
	while (!ended) {
		uint32_t wait_ms = 500;

		polls_used = 0;
		poll_add(wire, SLIRP_POLL_IN, NULL);
		slirp_pollfds_fill(slirp, &wait_ms, poll_add, NULL);
		ready = poll(polls, polls_used, timers_wait_ms(wait_ms));
		slirp_pollfds_poll(slirp, ready < 0, poll_events, NULL);
		if (ready > 0 && polls[0].revents & POLLIN)
			wire_read(slirp);
		timers_run();
	}
	while (waitpid(kernel, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
