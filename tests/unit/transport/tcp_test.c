// SPDX-License-Identifier: MIT
/* Real sockets on loopback, real loops in threads, the fake target above them. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <poll.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <event2/event.h>
#include "fake.h"
#include "loop.h"
#include "tcp.h"

static struct {
	struct workers *pool;
	struct loop *loops[2];
	pthread_t threads[2];
	unsigned int nloops;
	struct tcp_server *tcp;
	struct tcp_listener *listener;
	const struct tgt_port *added[4];
	unsigned int nports;
} net;

void tgt_port_add(struct tgt *tgt, struct tgt_port *port)
{
	(void)tgt;
	net.added[net.nports++] = port;
}

static void *run(void *arg)
{
	loop_run(arg);
	return NULL;
}

static void net_up_on(const struct tcp_config *config, unsigned int nloops, const char *addr)
{
	char err[256] = "";

	memset(&fake, 0, sizeof(fake));
	memset(&net, 0, sizeof(net));
	log_level(LOG_ERR_);
	net.nloops = nloops;
	for (unsigned int i = 0; i < nloops; i++)
		net.loops[i] = loop_new(NULL);
	net.tcp = tcp_new(NULL, net.loops, nloops, config);
	assert_non_null(net.tcp);
	if (tcp_listen(net.tcp, addr, 0, &net.listener, err, sizeof(err)))
		fail_msg("%s", err);
	for (unsigned int i = 0; i < nloops; i++)
		pthread_create(&net.threads[i], NULL, run, net.loops[i]);
}

static void net_up(const struct tcp_config *config)
{
	net_up_on(config, 1, "127.0.0.1");
}

static void stopped(void *arg)
{
	(void)arg;
	for (unsigned int i = 0; i < net.nloops; i++)
		loop_stop(net.loops[i]);
}

/* Ends everything; the time it took in ms. What leaks fails in tcp_free() or the sanitizer. */
static uint64_t net_down(void)
{
	uint64_t start = clock_ms(), took;

	tcp_shutdown(net.tcp, stopped, NULL);
	for (unsigned int i = 0; i < net.nloops; i++)
		pthread_join(net.threads[i], NULL);
	took = clock_ms() - start;
	tcp_free(net.tcp);
	for (unsigned int i = 0; i < net.nloops; i++)
		loop_free(net.loops[i]);
	assert_int_equal(fake.inits, fake.put);
	return took;
}

static int dial(void)
{
	const struct tgt_port *port = tcp_listener_port(net.listener);
	struct sockaddr_storage sa = { 0 };
	socklen_t len = sizeof(struct sockaddr_in);
	struct timeval tv = { .tv_sec = 10 };
	int fd;

	if (port->adrfam == NVMF_ADDR_FAMILY_IP6) {
		struct sockaddr_in6 *in6 = (void *)&sa;

		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)atoi(port->trsvcid));
		in6->sin6_addr = in6addr_loopback;
		len = sizeof(*in6);
	} else {
		struct sockaddr_in *in = (void *)&sa;

		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)atoi(port->trsvcid));
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	}
	fd = socket(sa.ss_family, SOCK_STREAM, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

static void put_all(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
}

static void get_all(int fd, void *data, size_t len)
{
	assert_int_equal(recv(fd, data, len, MSG_WAITALL), len);
}

/* True: the peer closed; false: it did not within MS. */
static bool closed_within(int fd, int ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	char c;

	if (poll(&pfd, 1, ms) <= 0)
		return false;
	return recv(fd, &c, 1, 0) <= 0;
}

/* True: *COUNTER, which a loop writes, has come to N, within ten seconds. */
static bool comes_to(const unsigned int *counter, unsigned int n)
{
	for (int i = 0; i < 1000; i++) {
		if (__atomic_load_n(counter, __ATOMIC_RELAXED) == n)
			return true;
		usleep(10000);
	}
	return false;
}

static void shake_hands(int fd, uint8_t dgst)
{
	uint8_t buf[128];

	put_all(fd, buf, make_icreq(buf, dgst, 0));
	get_all(fd, buf, sizeof(struct pdu_icresp));
}

static int dial_ready(uint8_t dgst)
{
	int fd = dial();

	shake_hands(fd, dgst);
	return fd;
}

static int dial_connected(uint8_t dgst)
{
	struct fake_cmd cmd = { .cid = 1, .op = FAKE_CONNECT };
	uint8_t buf[128];
	int fd = dial_ready(dgst);

	put_all(fd, buf, make_cmd(buf, cmd, NULL, 0, dgst));
	get_all(fd, buf, sizeof(struct pdu_resp) + (dgst & 1 ? 4 : 0));
	return fd;
}

static void write_by_r2t_and_read_back(int fd, uint32_t len)
{
	struct fake_cmd wr = { .cid = 7, .op = FAKE_WRITE, .len = len };
	struct fake_cmd rd = { .cid = 8, .op = FAKE_READ, .len = len };
	uint8_t *data = malloc(len), *buf = malloc(len + 256);
	struct pdu_r2t r2t;
	struct pdu_resp resp;
	struct pdu_data c2h;

	for (uint32_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i * 31 + i / 4096);
	put_all(fd, buf, make_cmd(buf, wr, NULL, 0, 0));
	get_all(fd, &r2t, sizeof(r2t));
	assert_int_equal(r2t.h.type, PDU_R2T);
	assert_int_equal(le32toh(r2t.r2tl), len);
	put_all(fd, buf, make_h2c_data(buf, 7, le16toh(r2t.ttag), 0, true, data, len, 0));
	get_all(fd, &resp, sizeof(resp));
	assert_int_equal(resp.h.type, PDU_RESP);
	assert_int_equal(resp.cqe.cid, 7);
	pthread_mutex_lock(&fake_lock);
	assert_int_equal(fake.wrote_len, len);
	assert_memory_equal(fake.wrote, data, len);
	pthread_mutex_unlock(&fake_lock);

	put_all(fd, buf, make_cmd(buf, rd, NULL, 0, 0));
	get_all(fd, &c2h, sizeof(c2h));
	assert_int_equal(c2h.h.type, PDU_C2H_DATA);
	assert_int_equal(le32toh(c2h.datal), len);
	get_all(fd, buf, len);
	for (uint32_t i = 0; i < len; i++)
		assert_int_equal(buf[i], 8);
	get_all(fd, &resp, sizeof(resp));
	assert_int_equal(resp.cqe.cid, 8);
	free(data);
	free(buf);
}

static void a_connection_writes_and_reads(void **state)
{
	int fd;

	(void)state;
	net_up(NULL);
	assert_int_equal(net.nports, 1);
	assert_ptr_equal(net.added[0], tcp_listener_port(net.listener));
	assert_string_equal(net.added[0]->traddr, "127.0.0.1");
	assert_int_not_equal(atoi(net.added[0]->trsvcid), 0);
	fd = dial_connected(0);
	write_by_r2t_and_read_back(fd, 512);
	write_by_r2t_and_read_back(fd, 1 << 20);
	close(fd);
	net_down();
}

/* The address that the host reached, which the discovery log tells it: never the wildcard. */
static void a_wildcard_listener_knows_the_address_of_each_connection(void **state)
{
	static const char *const addrs[][2] = { { "0.0.0.0", "127.0.0.1" }, { "::", "::1" } };

	(void)state;
	for (size_t i = 0; i < sizeof(addrs) / sizeof(addrs[0]); i++) {
		struct tgt_port port;
		int fd;

		net_up_on(NULL, 1, addrs[i][0]);
		assert_string_equal(tcp_listener_port(net.listener)->traddr, addrs[i][0]);
		fd = dial_connected(0);
		pthread_mutex_lock(&fake_lock); /* the queue is not closed meanwhile */
		port = *__atomic_load_n(&fake.queue, __ATOMIC_ACQUIRE)->port;
		pthread_mutex_unlock(&fake_lock);
		assert_string_equal(port.traddr, addrs[i][1]);
		assert_string_equal(port.trsvcid, tcp_listener_port(net.listener)->trsvcid);
		close(fd);
		net_down();
	}
}

/* They are different addresses, whatever the machine's net.ipv6.bindv6only is. */
static void both_wildcards_may_have_one_port(void **state)
{
	struct tcp_listener *l = NULL;
	char err[256] = "";
	uint16_t port;

	(void)state;
	net_up_on(NULL, 1, "::");
	port = (uint16_t)atoi(tcp_listener_port(net.listener)->trsvcid);
	tcp_shutdown(net.tcp, stopped, NULL);
	pthread_join(net.threads[0], NULL);
	tcp_free(net.tcp);
	net.tcp = tcp_new(NULL, net.loops, 1, NULL);
	assert_int_equal(tcp_listen(net.tcp, "::", port, &net.listener, err, sizeof(err)), 0);
	if (tcp_listen(net.tcp, "0.0.0.0", port, &l, err, sizeof(err)))
		fail_msg("%s", err);
	pthread_create(&net.threads[0], NULL, run, net.loops[0]);
	net_down();
}

static void ipv6_works_on_two_loops(void **state)
{
	int fds[4];

	(void)state;
	net_up_on(NULL, 2, "::1");
	for (int i = 0; i < 4; i++)
		fds[i] = dial_connected(0);
	for (int i = 0; i < 4; i++)
		write_by_r2t_and_read_back(fds[i], 65536);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	net_down();
}

static void many_commands_in_one_send_are_all_answered(void **state)
{
	uint8_t out[64 * 128];
	struct pdu_resp resp;
	size_t n = 0;
	int fd;

	(void)state;
	net_up(NULL);
	fd = dial_connected(0);
	for (uint16_t i = 0; i < 64; i++)
		n += make_cmd(out + n, (struct fake_cmd){ .cid = i }, NULL, 0, 0);
	put_all(fd, out, n);
	for (uint16_t i = 0; i < 64; i++) {
		get_all(fd, &resp, sizeof(resp));
		assert_int_equal(resp.cqe.cid, i);
	}
	close(fd);
	net_down();
}

/* More commands than slots, and no one reads the answers: the stream stalls, and goes on. */
static void a_flood_is_held_back_and_answered(void **state)
{
	enum { FLOOD = 4000 };
	uint8_t *out = malloc(FLOOD * 72);
	struct fake_cmd cmd = { .op = FAKE_READ, .len = 4096 };
	size_t n = 0, sent = 0;
	uint64_t got = 0, want = (uint64_t)FLOOD * (24 + 4096 + 24);
	char trash[65536];
	int fd;

	(void)state;
	net_up(NULL);
	fd = dial_connected(0);
	for (unsigned int i = 0; i < FLOOD; i++) {
		cmd.cid = (uint16_t)i;
		n += make_cmd(out + n, cmd, NULL, 0, 0);
	}
	while (got < want) {
		struct pollfd p = { .fd = fd, .events = POLLIN | (sent < n ? POLLOUT : 0) };
		ssize_t k;

		assert_int_equal(poll(&p, 1, 10000), 1);
		if (p.revents & POLLOUT) {
			k = send(fd, out + sent, n - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (k > 0)
				sent += (size_t)k;
		}
		if (p.revents & POLLIN && (sent == n || !(p.revents & POLLOUT))) {
			k = recv(fd, trash, sizeof(trash), 0);
			assert_true(k > 0);
			got += (size_t)k;
		}
	}
	assert_int_equal(got, want);
	free(out);
	close(fd);
	net_down();
}

static void a_protocol_error_brings_a_termreq_then_the_end(void **state)
{
	struct tcp_config config = tcp_defaults;
	uint8_t buf[256];
	struct pdu_term term;
	int fd;

	(void)state;
	config.linger_ms = 200;
	net_up(&config);
	fd = dial_ready(0);
	/* Much unread data behind the bad PDU must not cost the TermReq. */
	memset(buf, 0xee, sizeof(buf));
	make_icreq(buf, 0, 0);
	for (int i = 0; i < 100; i++)
		put_all(fd, buf, sizeof(buf));
	get_all(fd, &term, sizeof(term));
	assert_int_equal(term.h.type, PDU_C2H_TERM);
	assert_int_equal(le16toh(term.fes), FES_SEQUENCE);
	assert_int_equal(le32toh(term.h.plen), 24 + 128);
	get_all(fd, buf, 128);
	assert_int_equal(buf[2], 128);
	assert_true(closed_within(fd, 2000)); /* its write side */
	close(fd);
	net_down();
}

/* The host may be in the middle of sending when we terminate: a reset could cost it the TermReq. */
static void who_still_sends_after_a_termreq_is_not_reset(void **state)
{
	struct tcp_config config = tcp_defaults;
	uint8_t buf[256];
	struct pdu_term term;
	int fd;

	(void)state;
	config.linger_ms = 2000;
	net_up(&config);
	fd = dial_ready(0);
	put_all(fd, buf, make_icreq(buf, 0, 0)); /* a second one */
	get_all(fd, &term, sizeof(term));
	assert_int_equal(term.h.type, PDU_C2H_TERM);
	for (int i = 0; i < 10; i++) {
		put_all(fd, buf, sizeof(buf));
		usleep(5000);
	}
	close(fd);
	net_down();
}

static void a_silent_peer_is_closed_in_time(void **state)
{
	struct tcp_config config = tcp_defaults;
	uint8_t buf[128];
	int silent, slow, half, good;

	(void)state;
	config.handshake_ms = 150;
	net_up(&config);
	good = dial_connected(0);
	silent = dial();
	slow = dial();
	put_all(slow, buf, make_icreq(buf, 0, 0) - 1);
	half = dial_ready(0);
	assert_true(closed_within(silent, 2000));
	assert_true(closed_within(slow, 2000));
	assert_true(closed_within(half, 2000));
	assert_false(closed_within(good, 200));
	close(silent);
	close(slow);
	close(half);
	close(good);
	net_down();
}

/* So a Connect that waits too long is answered, with Controller Busy. */
static void a_held_connect_ends_before_its_connection(void **state)
{
	(void)state;
	assert_in_range(tcp_defaults.handshake_ms, TGT_CONNECT_WAIT + 1000, UINT32_MAX);
}

static void an_address_has_so_many_pending_connections(void **state)
{
	struct tcp_config config = tcp_defaults;
	int a, b, c;

	(void)state;
	config.max_pending = 2;
	net_up(&config);
	a = dial_connected(0); /* pending no more */
	b = dial_ready(0);
	c = dial_ready(0);
	for (int i = 0; i < 3; i++) {
		int d = dial();

		assert_true(closed_within(d, 2000));
		close(d);
	}
	assert_false(closed_within(a, 50));
	close(b);
	usleep(50000); /* its place is free again */
	b = dial_ready(0);
	close(a);
	close(b);
	close(c);
	net_down();
}

static void there_are_so_many_connections(void **state)
{
	struct tcp_config config = tcp_defaults;
	int a, b, c;

	(void)state;
	config.max_conns = 2;
	net_up(&config);
	a = dial_connected(0);
	b = dial_connected(0);
	c = dial();
	assert_true(closed_within(c, 2000));
	close(a);
	close(b);
	close(c);
	net_down();
}

/* The status of Connect on a new connection, *FD. */
static uint16_t connect_status(int *fd)
{
	struct fake_cmd connect = { .cid = 1, .op = FAKE_CONNECT };
	struct pdu_resp resp;
	uint8_t buf[128];

	*fd = dial_ready(0);
	put_all(*fd, buf, make_cmd(buf, connect, NULL, 0, 0));
	get_all(*fd, &resp, sizeof(resp));
	return le16toh(resp.cqe.status) >> 1;
}

static void a_host_has_so_many_connections(void **state)
{
	struct tcp_config config = tcp_defaults;
	int fd[3];

	(void)state;
	config.max_host_conns = 2;
	net_up(&config);
	assert_int_equal(connect_status(&fd[0]), 0);
	assert_int_equal(connect_status(&fd[1]), 0);
	assert_int_equal(connect_status(&fd[2]), NVME_SCT_SPECIFIC | NVME_SC_CONNECT_CTRL_BUSY);
	assert_true(closed_within(fd[2], 2000));
	assert_false(closed_within(fd[0], 50));
	close(fd[1]);
	close(fd[2]);
	assert_true(comes_to(&fake.closed, 2));
	usleep(50000);
	assert_int_equal(connect_status(&fd[1]), 0);
	close(fd[0]);
	close(fd[1]);
	net_down();
}

/* A flood of connections is told once, not once each. */
static void refusing_is_told_once(void **state)
{
	struct tcp_config config = tcp_defaults;
	char text[4096], *second;
	int log[2], saved, a;
	ssize_t n;

	(void)state;
	config.max_conns = 1;
	net_up(&config);
	a = dial_connected(0);
	saved = dup(STDERR_FILENO);
	assert_int_equal(pipe(log), 0);
	dup2(log[1], STDERR_FILENO);
	close(log[1]);
	log_level(LOG_WARN_);
	for (int i = 0; i < 3; i++) {
		int refused = dial();

		assert_true(closed_within(refused, 2000));
		close(refused);
	}
	close(a);
	net_down();
	dup2(saved, STDERR_FILENO);
	close(saved);
	n = read(log[0], text, sizeof(text) - 1);
	close(log[0]);
	assert_true(n > 0);
	text[n] = '\0';
	second = strstr(text, "refusing");
	assert_non_null(second);
	assert_null(strstr(second + 1, "refusing"));
}

/* Processor time of the whole program, in ms. */
static uint64_t cpu_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* No descriptor is left to accept with: the listener waits, idle, and accepts when there is one. */
static void without_descriptors_a_listener_waits(void **state)
{
	struct rlimit old, none;
	uint64_t cpu;
	int fd, next;

	(void)state;
	net_up(NULL);
	fd = dial_connected(0); /* whatever needs a descriptor once has it */
	close(fd);
	assert_true(comes_to(&fake.closed, 1));
	usleep(20000);
	next = dup(STDERR_FILENO); /* the client's end takes this one */
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ (rlim_t)next + 1, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	log_level(-1);
	cpu = cpu_ms();
	fd = dial();
	assert_false(closed_within(fd, 500));
	cpu = cpu_ms() - cpu;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_true(cpu < 150);
	shake_hands(fd, 0);
	close(fd);
	net_down();
}

/* Every prefix of a handshake with a write in two ways, then the peer is gone. */
static void the_peer_may_vanish_at_any_byte(void **state)
{
	uint8_t buf[1024];
	uint8_t data[64] = { 0 };
	size_t n = 0;

	(void)state;
	net_up(NULL);
	n += make_icreq(buf, 3, 0);
	n += make_cmd(buf + n, (struct fake_cmd){ .cid = 1, .op = FAKE_CONNECT }, NULL, 0, 3);
	n += make_cmd(buf + n, (struct fake_cmd){ .cid = 2, .op = FAKE_WRITE, .len = 64 }, data, 64,
		      3);
	n += make_cmd(buf + n, (struct fake_cmd){ .cid = 3, .op = FAKE_WRITE, .len = 64 }, NULL, 0,
		      3);
	n += make_cmd(buf + n, (struct fake_cmd){ .cid = 4, .op = FAKE_READ, .len = 64 }, NULL, 0,
		      3);
	for (size_t cut = 0; cut <= n; cut++) {
		int fd = dial();

		put_all(fd, buf, cut);
		if (cut & 1) { /* with a reset */
			struct linger reset = { .l_onoff = 1 };

			setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		}
		close(fd);
	}
	net_down();
}

static void shutdown_waits_for_what_executes(void **state)
{
	struct pdu_resp resp;
	uint8_t buf[128];
	uint64_t took;
	int fd, idle;

	(void)state;
	net_up(NULL);
	idle = dial_connected(0);
	fd = dial_connected(0);
	for (uint16_t i = 0; i < 50; i++)
		put_all(fd, buf, make_cmd(buf, (struct fake_cmd){ .cid = i }, NULL, 0, 0));
	for (uint16_t i = 0; i < 50; i++)
		get_all(fd, &resp, sizeof(resp));
	took = net_down();
	assert_true(took < 1500);
	assert_true(closed_within(fd, 100));
	assert_true(closed_within(idle, 100));
	close(fd);
	close(idle);
}

static void finish_held(struct loop_msg *msg)
{
	(void)msg;
	while (fake.nheld)
		tgt_req_complete(fake.held[--fake.nheld], 0);
}

/* The host is gone, its command is not: the memory has to stay until it comes home. */
static void a_connection_outlives_its_peer_while_a_command_runs(void **state)
{
	static struct loop_msg msg = { .fn = finish_held };
	uint8_t buf[256];
	int fd;

	(void)state;
	net_up(NULL);
	for (int reset = 0; reset < 2; reset++) {
		struct linger linger = { .l_onoff = 1 };

		fd = dial_connected(0);
		put_all(fd, buf, make_cmd(buf, (struct fake_cmd){ .op = FAKE_HOLD }, NULL, 0, 0));
		assert_true(comes_to(&fake.inits, 2 + 2 * reset));
		if (reset)
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
		close(fd);
		usleep(30000);
		assert_int_equal(__atomic_load_n(&fake.put, __ATOMIC_RELAXED), 1 + 2 * reset);
		loop_post(net.loops[0], &msg);
		assert_true(comes_to(&fake.put, 2 + 2 * reset));
	}
	net_down();
}

/* Called as the target calls it: under a lock that keeps the queue from being closed meanwhile. */
static void *disconnect_from_elsewhere(void *arg)
{
	struct tgt_queue *queue = arg;

	queue->ops->disconnect(queue);
	queue->ops->disconnect(queue); /* once more does no harm */
	return NULL;
}

static void the_target_ends_a_connection_from_any_thread(void **state)
{
	pthread_t t;
	int fd;

	(void)state;
	net_up(NULL);
	fd = dial_connected(0);
	pthread_mutex_lock(&fake_lock);
	pthread_create(&t, NULL, disconnect_from_elsewhere,
		       __atomic_load_n(&fake.queue, __ATOMIC_ACQUIRE));
	pthread_join(t, NULL);
	pthread_mutex_unlock(&fake_lock);
	assert_true(closed_within(fd, 2000));
	assert_int_equal(__atomic_load_n(&fake.closed, __ATOMIC_RELAXED), 1);
	close(fd);
	net_down();
}

/* Both ends at once, many times: the message and the end of file race. */
static void disconnect_and_vanishing_may_race(void **state)
{
	pthread_t t;

	(void)state;
	net_up_on(NULL, 2, "127.0.0.1");
	for (int i = 0; i < 50; i++) {
		int fd = dial_connected(0);

		pthread_mutex_lock(&fake_lock);
		pthread_create(&t, NULL, disconnect_from_elsewhere,
			       __atomic_load_n(&fake.queue, __ATOMIC_ACQUIRE));
		close(fd);
		pthread_join(t, NULL);
		pthread_mutex_unlock(&fake_lock);
	}
	net_down();
}

static size_t allocated(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static void free_buffers_go_back_when_idle(void **state)
{
	struct tcp_config config = tcp_defaults;
	size_t busy;
	int fd;

	(void)state;
	config.idle_ms = 500;
	net_up(&config);
	fd = dial_connected(0);
	write_by_r2t_and_read_back(fd, 1 << 20);
	busy = allocated(); /* 0: a sanitizer has an allocator of its own */
	for (int i = 0; busy && i < 500 && allocated() + (1 << 20) > busy; i++)
		usleep(20000);
	if (busy)
		assert_true(allocated() + (1 << 20) <= busy);
	write_by_r2t_and_read_back(fd, 1 << 20); /* and are there again */
	close(fd);
	net_down();
}

/* A page of the mapping cannot be read: sendmsg() says EFAULT, and no signal comes. */
static void a_mapping_that_cannot_be_read_ends_the_connection(void **state)
{
	void *hole = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t buf[128];
	int fd;

	(void)state;
	assert_ptr_not_equal(hole, MAP_FAILED);
	net_up(NULL);
	fake.mapping = hole;
	fd = dial_connected(0);
	put_all(fd, buf,
		make_cmd(buf, (struct fake_cmd){ .cid = 1, .op = FAKE_ZERO_COPY, .len = 4096 },
			 NULL, 0, 0));
	while (recv(fd, buf, sizeof(buf), 0) > 0)
		;
	close(fd);
	net_down();
	assert_int_equal(fake.released, 1);
	assert_int_equal(fake.unreadable, 1);
	munmap(hole, 4096);
}

/* Under data digests it is noticed before a byte is sent, and only the command fails. */
static void a_mapping_that_cannot_be_digested_fails_the_command(void **state)
{
	int fd, file = memfd_create("hole", MFD_CLOEXEC);
	void *hole = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0); /* behind its end */
	struct pdu_resp r;
	uint8_t buf[128];

	(void)state;
	assert_ptr_not_equal(hole, MAP_FAILED);
	net_up(NULL);
	fake.mapping = hole;
	fd = dial_connected(2);
	for (uint16_t cid = 1; cid <= 2; cid++) {
		put_all(fd, buf,
			make_cmd(buf,
				 (struct fake_cmd){ .cid = cid, .op = FAKE_ZERO_COPY, .len = 4096 },
				 NULL, 0, 2));
		get_all(fd, &r, sizeof(r));
		assert_int_equal(r.h.type, PDU_RESP);
		assert_int_equal(r.cqe.cid, cid);
		assert_int_equal(le16toh(r.cqe.status),
				 (NVME_SCT_MEDIA << NVME_SCT_SHIFT | NVME_SC_READ_ERROR) << 1);
	}
	close(fd);
	net_down();
	assert_int_equal(fake.released, 2);
	assert_int_equal(fake.unreadable, 2);
	munmap(hole, 4096);
	close(file);
}

/* The peer is gone, which says nothing about the mapping that was sent to it. */
static void a_mapping_sent_to_a_lost_peer_was_readable(void **state)
{
	enum { LEN = 1 << 20, N = 8 };
	const struct linger reset = { .l_onoff = 1 };
	uint8_t *mapping = calloc(1, LEN), buf[128];
	int fd;

	(void)state;
	net_up(NULL);
	fake.mapping = mapping;
	fd = dial_connected(0);
	for (uint16_t i = 0; i < N; i++)
		put_all(fd, buf,
			make_cmd(buf,
				 (struct fake_cmd){ .cid = i, .op = FAKE_ZERO_COPY, .len = LEN },
				 NULL, 0, 0));
	assert_true(comes_to(&fake.zero_copies, N));
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
	net_down();
	assert_int_equal(fake.released, N);
	assert_int_equal(fake.unreadable, 0);
	free(mapping);
}

/* Nor can it be filled, be it by readv() or from what was staged. */
static void a_mapping_that_cannot_be_filled_ends_the_connection(void **state)
{
	enum { LEN = 1 << 17 };
	int cut = memfd_create("cut", MFD_CLOEXEC); /* it has no byte */
	void *hole = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, cut, 0);
	uint8_t *buf = calloc(2, LEN + 128);
	struct pdu_r2t r2t;
	int fd;

	(void)state;
	assert_ptr_not_equal(hole, MAP_FAILED);
	for (int staged = 0; staged < 2; staged++) {
		size_t n;

		net_up(NULL);
		fake.mapping = hole;
		fake.released = fake.unreadable = 0;
		fd = dial_connected(0);
		put_all(fd, buf,
			make_cmd(buf,
				 (struct fake_cmd){
					 .cid = 1, .op = FAKE_ZERO_COPY_WRITE, .len = LEN },
				 NULL, 0, 0));
		assert_int_equal(recv(fd, &r2t, sizeof(r2t), MSG_WAITALL), sizeof(r2t));
		assert_int_equal(r2t.h.type, PDU_R2T);
		n = make_h2c_data(buf, 1, le16toh(r2t.ttag), 0, true, buf + LEN + 128, LEN, 0);
		if (staged) {
			put_all(fd, buf, 100);
		} else {
			put_all(fd, buf, sizeof(struct pdu_data));
			usleep(20000);
			(void)send(fd, buf, n, MSG_NOSIGNAL);
		}
		while (recv(fd, buf, LEN, 0) > 0)
			;
		close(fd);
		net_down();
		assert_int_equal(fake.released, 1);
		assert_int_equal(fake.unreadable, 1);
	}
	free(buf);
	munmap(hole, LEN);
	close(cut);
}

/* Asks until all buffers of the sockets are full, and reads nothing for so many ms (0: until the
 * connection is no more), then all. */
static bool survives_a_pause(uint32_t ms)
{
	enum { LEN = 1 << 20, N = 32 };
	struct tcp_config config = tcp_defaults;
	uint8_t *buf = malloc(LEN + 64);
	size_t got = 0;
	ssize_t n;
	int fd;

	config.host_ms = 300;
	net_up(&config);
	fd = dial_connected(0);
	for (int i = 0; i < N; i++)
		put_all(fd, buf,
			make_cmd(buf,
				 (struct fake_cmd){ .cid = 10 + i, .op = FAKE_READ, .len = LEN },
				 NULL, 0, 0));
	if (ms)
		usleep(1000 * ms);
	else
		assert_true(comes_to(&fake.closed, 1));
	while (got < N * (LEN + 48ul) && (n = recv(fd, buf, LEN, 0)) > 0)
		got += (size_t)n;
	if (got ==
	    N * (LEN + 48ul)) /* whoever has taken all is not slow, however long he is idle */
		assert_false(closed_within(fd, 3 * (int)config.host_ms));
	close(fd);
	free(buf);
	net_down();
	return got == N * (LEN + 48ul);
}

static void a_host_that_takes_nothing_is_closed(void **state)
{
	(void)state;
	assert_true(survives_a_pause(100));
	assert_false(survives_a_pause(0));
}

/* Asks for more than the sockets hold, and takes little of it, again and again. */
static void a_host_that_takes_little_is_closed(void **state)
{
	enum { LEN = 1 << 20, N = 32 };
	struct tcp_config config = tcp_defaults;
	uint8_t buf[128];
	int fd;

	(void)state;
	config.host_ms = 300;
	net_up(&config);
	fd = dial_connected(0);
	for (int i = 0; i < N; i++)
		put_all(fd, buf,
			make_cmd(buf,
				 (struct fake_cmd){ .cid = 10 + i, .op = FAKE_READ, .len = LEN },
				 NULL, 0, 0));
	for (int i = 0; i < 200 && !__atomic_load_n(&fake.closed, __ATOMIC_RELAXED); i++) {
		uint8_t some[16384]; /* enough to open the window */

		(void)recv(fd, some, sizeof(some), MSG_DONTWAIT);
		if (i % 4 == 0) /* has the target try to send again */
			(void)send(fd, buf,
				   make_cmd(buf, (struct fake_cmd){ .cid = 100 + i }, NULL, 0, 0),
				   MSG_NOSIGNAL);
		usleep(20000);
	}
	assert_int_equal(__atomic_load_n(&fake.closed, __ATOMIC_RELAXED), 1);
	close(fd);
	net_down();
}

/*
 * Sends a write, of 64 KiB by R2T or of 8 KiB in its capsule, with a data digest if DGST is 2: all but
 * the last LESS bytes of it. Whether it is answered.
 */
static bool is_answered_without(size_t less, bool in_capsule, uint8_t dgst)
{
	enum { LEN = 65536 };
	struct fake_cmd cmd = { .cid = 1, .op = FAKE_WRITE, .len = in_capsule ? 8192 : LEN };
	struct tcp_config config = tcp_defaults;
	uint8_t *buf = calloc(2, LEN + 128);
	struct pdu_resp resp;
	struct pdu_r2t r2t;
	ssize_t got;
	size_t n;
	int fd;

	config.host_ms = 200;
	net_up(&config);
	fd = dial_connected(dgst);
	n = make_cmd(buf, cmd, in_capsule ? buf + LEN + 128 : NULL, in_capsule ? 8192 : 0, dgst);
	if (!in_capsule) {
		put_all(fd, buf, n);
		assert_int_equal(recv(fd, &r2t, sizeof(r2t), MSG_WAITALL), sizeof(r2t));
		n = make_h2c_data(buf, 1, le16toh(r2t.ttag), 0, true, buf + LEN + 128, LEN, dgst);
	}
	put_all(fd, buf, less < n ? n - less : 0);
	got = recv(fd, &resp, sizeof(resp), MSG_WAITALL);
	if (got <= 0)
		assert_true(comes_to(&fake.closed, 1));
	close(fd);
	free(buf);
	net_down();
	return got == sizeof(resp);
}

static void data_that_does_not_come_ends_the_connection(void **state)
{
	(void)state;
	for (uint8_t dgst = 0; dgst <= 2; dgst += 2) {
		for (int in_capsule = 0; in_capsule < 2; in_capsule++) {
			assert_true(is_answered_without(0, in_capsule, dgst));
			assert_false(is_answered_without(2, in_capsule, dgst));
			assert_false(is_answered_without(8000, in_capsule, dgst));
		}
		assert_false(is_answered_without(SIZE_MAX, false, dgst));
	}
}

static int fail_at; /* the allocation of libevent that fails, counted from here; 0: none */

static void *event_malloc(size_t n)
{
	return fail_at && !--fail_at ? NULL : malloc(n);
}

static int lowest_fd(void)
{
	int fd = dup(STDERR_FILENO);

	close(fd);
	return fd;
}

static void without_memory_for_its_events_there_is_no_listener(void **state)
{
	struct tcp_listener *l = NULL;
	char err[256] = "";
	int fd;

	(void)state;
	net_up(NULL);
	fd = lowest_fd();
	for (int n = 1; n <= 2; n++) {
		fail_at = n;
		assert_int_equal(tcp_listen(net.tcp, "127.0.0.1", 0, &l, err, sizeof(err)),
				 -ENOMEM);
		assert_int_equal(fail_at, 0);
		assert_null(l);
		assert_int_equal(lowest_fd(), fd); /* its socket is closed */
	}
	net_down();
}

static void what_cannot_be_listened_on_is_a_sentence(void **state)
{
	struct tcp_listener *l = NULL;
	char err[256] = "";

	(void)state;
	net_up(NULL);
	assert_int_equal(tcp_listen(net.tcp, "127.0.0.1",
				    (uint16_t)atoi(tcp_listener_port(net.listener)->trsvcid), &l,
				    err, sizeof(err)),
			 -EADDRINUSE);
	assert_non_null(strstr(err, "127.0.0.1"));
	assert_non_null(strstr(err, "in use"));
	assert_null(l);
	assert_true(tcp_listen(net.tcp, "no such host", 0, &l, err, sizeof(err)) < 0);
	assert_non_null(strstr(err, "no such host"));
	net_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_connection_writes_and_reads),
		cmocka_unit_test(a_wildcard_listener_knows_the_address_of_each_connection),
		cmocka_unit_test(both_wildcards_may_have_one_port),
		cmocka_unit_test(ipv6_works_on_two_loops),
		cmocka_unit_test(many_commands_in_one_send_are_all_answered),
		cmocka_unit_test(a_flood_is_held_back_and_answered),
		cmocka_unit_test(a_protocol_error_brings_a_termreq_then_the_end),
		cmocka_unit_test(who_still_sends_after_a_termreq_is_not_reset),
		cmocka_unit_test(a_silent_peer_is_closed_in_time),
		cmocka_unit_test(a_held_connect_ends_before_its_connection),
		cmocka_unit_test(an_address_has_so_many_pending_connections),
		cmocka_unit_test(there_are_so_many_connections),
		cmocka_unit_test(a_host_has_so_many_connections),
		cmocka_unit_test(refusing_is_told_once),
		cmocka_unit_test(without_descriptors_a_listener_waits),
		cmocka_unit_test(the_peer_may_vanish_at_any_byte),
		cmocka_unit_test(shutdown_waits_for_what_executes),
		cmocka_unit_test(a_connection_outlives_its_peer_while_a_command_runs),
		cmocka_unit_test(the_target_ends_a_connection_from_any_thread),
		cmocka_unit_test(disconnect_and_vanishing_may_race),
		cmocka_unit_test(free_buffers_go_back_when_idle),
		cmocka_unit_test(a_mapping_that_cannot_be_read_ends_the_connection),
		cmocka_unit_test(a_mapping_that_cannot_be_digested_fails_the_command),
		cmocka_unit_test(a_mapping_sent_to_a_lost_peer_was_readable),
		cmocka_unit_test(a_mapping_that_cannot_be_filled_ends_the_connection),
		cmocka_unit_test(a_host_that_takes_nothing_is_closed),
		cmocka_unit_test(data_that_does_not_come_ends_the_connection),
		cmocka_unit_test(a_host_that_takes_little_is_closed),
		cmocka_unit_test(without_memory_for_its_events_there_is_no_listener),
		cmocka_unit_test(what_cannot_be_listened_on_is_a_sentence),
	};

	event_set_mem_functions(event_malloc, realloc, free);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
