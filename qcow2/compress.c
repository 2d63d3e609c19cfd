/* SPDX-License-Identifier: MIT */
/*
 * Decompresses clusters: raw deflate with a window of 12 bits, as qcow2 defines it, or zstd. The
 * length in the L2 entry is rounded up to sectors, so meaningless bytes follow the input; a cluster
 * is accepted if it decompresses to exactly one cluster. The output buffer bounds the output, and a
 * limit on zstd's window bounds its memory, so no image can make us use more.
 *
 * No lock. Any thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "image.h"

#define ZLIB_WINDOW_BITS (-12) /* negative: no zlib header */
#define ZSTD_WINDOW_LOG	 23    /* 8 MiB; QEMU's encoder asks for 2 MiB */

static int unzlib(const void *in, size_t in_len, void *out, size_t out_len)
{
	z_stream s = {
		.next_in = (Bytef *)in,
		.avail_in = in_len,
		.next_out = out,
		.avail_out = out_len,
	};
	int ret;

	if (inflateInit2(&s, ZLIB_WINDOW_BITS) != Z_OK)
		return -ENOMEM;
	ret = inflate(&s, Z_FINISH);
	inflateEnd(&s);
	return s.avail_out == 0 && (ret == Z_STREAM_END || ret == Z_BUF_ERROR) ? 0 : -EIO;
}

static int unzstd(const void *in, size_t in_len, void *out, size_t out_len)
{
	ZSTD_inBuffer from = { in, in_len, 0 };
	ZSTD_outBuffer to = { out, out_len, 0 };
	ZSTD_DCtx *ctx = ZSTD_createDCtx();
	size_t ret, before;

	if (!ctx)
		return -ENOMEM;
	ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
	do {
		before = to.pos;
		ret = ZSTD_decompressStream(ctx, &to, &from);
	} while (!ZSTD_isError(ret) && ret && to.pos < to.size &&
		 (from.pos < from.size || to.pos > before));
	ZSTD_freeDCtx(ctx);
	return ZSTD_isError(ret) || to.pos != to.size ? -EIO : 0;
}

int compressed_read(struct qcow2 *q, const struct mapping *m, void *buf)
{
	void *in = malloc(m->length);
	int err;

	if (!in)
		return -ENOMEM;
	err = file_read(q->file, in, m->length, m->host, 0);
	if (!err && q->info.compression == QCOW2_ZSTD)
		err = unzstd(in, m->length, buf, q->cluster_size);
	else if (!err)
		err = unzlib(in, m->length, buf, q->cluster_size);
	free(in);
	return err;
}
