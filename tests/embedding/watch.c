/* Counts what a real-time thread may not do. Preloaded (LD_PRELOAD), it stands before the C library's
 * allocation and locking functions; `watch_*` run the C API meanwhile. Without Python: the header
 * alone. See test_embedding.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fastlstm.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static __thread int watching __attribute__((tls_model("initial-exec")));
static __thread long calls __attribute__((tls_model("initial-exec")));

/* name (parameters) with `arguments`, counted and passed on; the C library's own is `real`. */
#define COUNTED(result, name, real, parameters, arguments)                                          \
    extern result real parameters;                                                                 \
    result name parameters                                                                         \
    {                                                                                              \
        calls += watching;                                                                         \
        return real arguments;                                                                     \
    }

COUNTED(void *, malloc, __libc_malloc, (size_t size), (size))
COUNTED(void *, calloc, __libc_calloc, (size_t n, size_t size), (n, size))
COUNTED(void *, realloc, __libc_realloc, (void *memory, size_t size), (memory, size))
COUNTED(void *, aligned_alloc, __libc_memalign, (size_t alignment, size_t size), (alignment, size))

void free(void *memory)
{
    extern void __libc_free(void *);
    calls += watching;
    __libc_free(memory);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    extern void *__libc_memalign(size_t, size_t);
    calls += watching;
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : 12;
}

#define LOCK(name, type)                                                                            \
    int name(type *lock)                                                                           \
    {                                                                                              \
        static int (*next)(type *);                                                                \
        calls += watching;                                                                         \
        if (!next)                                                                                 \
            next = (int (*)(type *))dlsym(RTLD_NEXT, #name);                                       \
        return next(lock);                                                                         \
    }

LOCK(pthread_mutex_lock, pthread_mutex_t)
LOCK(pthread_mutex_trylock, pthread_mutex_t)
LOCK(pthread_mutex_unlock, pthread_mutex_t)
LOCK(pthread_cond_signal, pthread_cond_t)
LOCK(pthread_cond_broadcast, pthread_cond_t)
LOCK(sem_wait, sem_t)
LOCK(sem_trywait, sem_t)
LOCK(sem_post, sem_t)

/* A control: `create` and `destroy` do allocate and free. */
long watch_create(const fastlstm_api *api, const fastlstm_layer *layer)
{
    fastlstm_plan *plan;
    calls = 0;
    watching = 1;
    if (api->create(&plan, layer) == FASTLSTM_OK)
        api->destroy(plan);
    watching = 0;
    return calls;
}

static void run(const fastlstm_api *api, fastlstm_state *state, ptrdiff_t T, const void *x, void *y,
                void *workspace)
{
    for (ptrdiff_t t = 0; t < T; t++)
        api->step(state, x, y);
    api->forward(state, T, x, y, workspace);
    api->reset_rows(state, x);  /* any bytes are flags */
    api->forward_episodes(state, T, x, x, y, NULL, workspace);
    api->set_state(state, NULL, NULL);
    api->get_state(state, y, NULL);
}

/* How often T steps and a sequence of T allocate, free or lock. */
long watch_run(const fastlstm_api *api, fastlstm_state *state, ptrdiff_t T, const void *x, void *y,
               void *workspace)
{
    calls = 0;
    watching = 1;
    run(api, state, T, x, y, workspace);
    watching = 0;
    return calls;
}

/* The same where the kernel ends the process at any system call but read, write and exit: a futex,
 * for one. 0 if it lived, 1 if it was ended, 2 where the kernel has no such mode. */
int watch_system_calls(const fastlstm_api *api, fastlstm_state *state, ptrdiff_t T, const void *x,
                       void *y, void *workspace, int control)
{
    int status;
    const pid_t child = fork();
    if (child == 0) {
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
            syscall(SYS_exit, 2);
        if (control)
            syscall(SYS_getpid);
        run(api, state, T, x, y, workspace);
        syscall(SYS_exit, 0);
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
