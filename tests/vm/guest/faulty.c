// SPDX-License-Identifier: GPL-2.0-or-later
/* A kernel module with one bug of choice, to see whether a debug kernel and the harness see it. */
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/workqueue.h>

static char* bug;
module_param(bug, charp, 0);

static DEFINE_MUTEX(one);
static DEFINE_MUTEX(other);

static void lock_both(struct mutex* first, struct mutex* second) {
    mutex_lock(first);
    mutex_lock(second);
    mutex_unlock(second);
    mutex_unlock(first);
}

static noinline void leak(void) {
    char* lost = kmalloc(100, GFP_KERNEL);

    OPTIMIZER_HIDE_VAR(lost);
}

static noinline void use_after_free(void) {
    char* gone = kmalloc(100, GFP_KERNEL);

    if (!gone)
        return;
    OPTIMIZER_HIDE_VAR(gone);
    kfree(gone);
    WRITE_ONCE(gone[50], 1);
}

static noinline void lock_inversion(void) {
    lock_both(&one, &other);
    lock_both(&other, &one);
}

static noinline void rcu_without_lock(void) {
    static int __rcu* pointer;

    (void)rcu_dereference(pointer);
}

static noinline void freed_work_pending(void) {
    struct delayed_work* work = kmalloc(sizeof(*work), GFP_KERNEL);

    if (!work)
        return;
    INIT_DELAYED_WORK(work, NULL);
    queue_delayed_work(system_wq, work, 100 * HZ);
    /* what is reported stops the timer, too */
    kfree(work);
}

static const struct {
    const char* name;
    void (*commit)(void);
} bugs[] = {
    {"leak", leak},
    {"use_after_free", use_after_free},
    {"lock_inversion", lock_inversion},
    {"rcu_without_lock", rcu_without_lock},
    {"freed_work_pending", freed_work_pending},
};

/* not __init: backtraces would show its bare address once it is gone, as those of an unloaded module do */
static int faulty_init(void) {
    unsigned int i;

    for (i = 0; i < ARRAY_SIZE(bugs); i++) {
        if (bug && !strcmp(bug, bugs[i].name)) {
            bugs[i].commit();
            return 0;
        }
    }
    return -EINVAL;
}
module_init(faulty_init);

static void __exit faulty_exit(void) {}
module_exit(faulty_exit);

MODULE_DESCRIPTION("A module with a bug, for tests");
MODULE_LICENSE("GPL");
