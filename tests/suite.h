/* suite.h - a test program: its groups and cases, said once, instead of a main().
 *
 *     SUITE("dataset") {
 *         GROUP("files", .setup = tmpdir_begin, .teardown = tmpdir_end, .timeout = 120);
 *         CASE(bad_ids);
 *         CASE(damaged, .times = 24); // START_TEST(damaged) runs with _i = 0..23
 *     }
 *
 * The body is plain C and runs before the tests: what they need is prepared there, and an `if` leaves cases out.
 * A START_TEST that no CASE names is an unused variable, which compilers warn of and WERROR=1 refuses. Each case runs
 * in a process of its own. CK_RUN_CASE=group runs one group. */
#ifndef HYB_TESTS_SUITE_H
#define HYB_TESTS_SUITE_H
#include <check.h>

typedef struct {
    void (*setup)(void), (*teardown)(void);           /* before and after each case, in its process */
    void (*setup_once)(void), (*teardown_once)(void); /* before and after the group */
    int timeout;                                      /* seconds a case may take; 0: 60 */
} SuiteGroup;
typedef struct {
    int times; /* 0: once */
} SuiteCase;

static Suite *suite;
static TCase *suite_group;
static char **suite_argv;               /* of the program */
static void (*suite_after)(int failed); /* called at the end, if set */

static inline void suite_open_group(const char *name, SuiteGroup g) {
    suite_group = tcase_create(name);
    tcase_set_timeout(suite_group, g.timeout ? g.timeout : 60);
    if (g.setup) tcase_add_checked_fixture(suite_group, g.setup, g.teardown);
    if (g.setup_once) tcase_add_unchecked_fixture(suite_group, g.setup_once, g.teardown_once);
    suite_add_tcase(suite, suite_group);
}
static inline void suite_add_case(const TTest *test, SuiteCase c) {
    if (!suite_group) suite_open_group("all", (SuiteGroup){0});
    tcase_add_loop_test(suite_group, test, 0, c.times ? c.times : 1);
}

/* libcheck's own macro comes from a system header, where no compiler warns of what is unused. */
#undef START_TEST
#define START_TEST(name)                                                                                               \
    static void name##_fn(int _i);                                                                                     \
    static const TTest name = {#name, name##_fn, __FILE__, __LINE__};                                                  \
    static void name##_fn(int _i CK_ATTRIBUTE_UNUSED)
#define GROUP(name, ...) suite_open_group(name, (SuiteGroup){__VA_ARGS__})
#define CASE(test, ...)  suite_add_case(&test, (SuiteCase){__VA_ARGS__})
#define SUITE(name)                                                                                                    \
    static void suite_body(void);                                                                                      \
    int main(int argc, char **argv) {                                                                                  \
        (void)argc;                                                                                                    \
        suite_argv = argv;                                                                                             \
        suite = suite_create(name);                                                                                    \
        suite_body();                                                                                                  \
        SRunner *runner = srunner_create(suite);                                                                       \
        srunner_run_all(runner, CK_NORMAL);                                                                            \
        const int failed = srunner_ntests_failed(runner);                                                              \
        srunner_free(runner);                                                                                          \
        if (suite_after) suite_after(failed);                                                                          \
        return failed != 0;                                                                                            \
    }                                                                                                                  \
    static void suite_body(void)
#endif
