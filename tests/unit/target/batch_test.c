/* SPDX-License-Identifier: MIT */
/* tgt_queue_batch_end(): a batch is handed out by namespace, in order, and to the last. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "target.h"

static struct {
	unsigned int calls, reqs;
	uint16_t last;
	struct tgt_queue *queue;
	struct tgt_req *late;
} seen;

static void record(struct tgt_reqs *reqs)
{
	const struct tgt_ns *ns = STAILQ_FIRST(reqs)->ns;
	struct tgt_req *req;

	seen.calls++;
	while ((req = STAILQ_FIRST(reqs))) {
		STAILQ_REMOVE_HEAD(reqs, link);
		assert_ptr_equal(req->ns, ns);
		assert_int_equal(req->cmd.cid, ++seen.last);
		seen.reqs++;
	}
	if (seen.late) /* what comes while it runs is not forgotten */
		STAILQ_INSERT_TAIL(&seen.queue->batch, seen.late, link);
	seen.late = NULL;
}

static void a_batch_is_handed_out_by_namespace(void **state)
{
	static const struct tgt_command_set set = { .run_batch = record };
	static const int of[] = { 0, 0, 1, 1, 1, 0, 1 };
	enum { N = sizeof(of) / sizeof(of[0]) };
	struct tgt_ns ns[2] = { { .set = &set }, { .set = &set } };
	struct tgt_req req[N + 1] = { 0 };
	struct tgt_queue queue;

	(void)state;
	tgt_queue_init(&queue, NULL, NULL, NULL, NULL);
	tgt_queue_batch_end(&queue);
	assert_int_equal(seen.calls, 0);
	tgt_queue_batch_begin(&queue);
	assert_true(queue.batching);
	for (int i = 0; i < N; i++) {
		req[i] = (struct tgt_req){ .ns = &ns[of[i]], .cmd.cid = i + 1 };
		STAILQ_INSERT_TAIL(&queue.batch, &req[i], link);
	}
	req[N] = (struct tgt_req){ .ns = &ns[0], .cmd.cid = N + 1 };
	seen.queue = &queue;
	seen.late = &req[N];
	tgt_queue_batch_end(&queue);
	assert_false(queue.batching);
	assert_int_equal(seen.calls, 5);
	assert_int_equal(seen.reqs, N + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_batch_is_handed_out_by_namespace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
