#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/in_memory.sh TEST [ARG]...: runs a test that has its images in $TMPDIR on a tmpfs.
[ "$(df --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 1048576 ] || { echo "SKIP: no tmpfs with 1 GiB of room" && exit 77; }
export TMPDIR=/dev/shm
exec "$@"
