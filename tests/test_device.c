/* test_device.c - the one command for a lent GPU (tests/gpu/device.sh), with stand-ins for every tool: it keeps its
 * promises under both shells before it meets a device. */
#include <stdio.h>
#include <stdlib.h>
#include "suite.h"

static const char *const shells[] = {"sh", "bash"};
START_TEST(dry_run) {
    char command[200];
    snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1 || exit 77; sh tests/gpu/device_dry.sh %s",
             shells[_i], shells[_i]);
    const int rc = system(command);
    if (rc == 77 << 8) printf("SKIP no %s\n", shells[_i]);
    else ck_assert_int_eq(rc, 0);
}
END_TEST

SUITE("device") {
    GROUP("device.sh", .timeout = 300);
    CASE(dry_run, .times = 2);
}
