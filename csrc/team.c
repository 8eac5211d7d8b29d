#define _GNU_SOURCE /* sched_getcpu, CPU_SET */

#include "team.h"

/* Set and read without a lock: with the GIL by `set_num_threads`, without it by calls and by
 * threadpoolctl. Compilers without POSIX systems may lack atomics; an int is written whole there. */
#if defined(__unix__) || defined(__APPLE__)
#include <stdatomic.h>
static atomic_int most_threads = 1;
#else
static volatile int most_threads = 1;
#endif

int fastlstm_get_num_threads(void) { return most_threads; }

void fastlstm_set_num_threads(int threads)
{
    most_threads = threads < 1 ? 1 : threads > TEAM_MOST_THREADS ? TEAM_MOST_THREADS : threads;
}

#if defined(__unix__) || defined(__APPLE__)

#include <pthread.h>
#include <sched.h>

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

/* About 20 us: long enough to bridge the gap between the layers of a network, short enough not to
 * be in the way of other pools. A thread at a barrier then gives up its time slice, a worker
 * without work sleeps. */
#define SPINS 1500

static struct {
    pthread_mutex_t owner; /* held by the thread that has the team */
    pthread_mutex_t sleep; /* guards `round` for sleepers */
    pthread_cond_t wake;
    int started;           /* workers that exist, numbered 1..started */
    unsigned born[TEAM_MOST_THREADS]; /* the round in which each was started */
    team_body body;
    void *job;
    int threads;           /* in this round */
    atomic_int sleepers;   /* workers that have to be woken */
    int caller_cpu;        /* where thread 0 runs, or -1 */
    atomic_uint round;     /* counts calls; a change starts the workers */
    atomic_int working;    /* workers that have not finished this round */
    atomic_int arrived;    /* at the current barrier */
    atomic_uint barrier;   /* counts barriers passed */
} team = {.owner = PTHREAD_MUTEX_INITIALIZER,
          .sleep = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER};

/* In a virtual machine a sleeping CPU can look busy to the kernel, which then wakes the worker on the
 * caller's own CPU, to wait there for milliseconds. The caller steps back for a moment after it has
 * woken somebody, and a worker that finds itself on its CPU goes to another. */
#if defined(__linux__)

static int current_cpu(void) { return sched_getcpu(); }

static void leave_cpu(int cpu)
{
    cpu_set_t allowed, others;
    if (cpu < 0 || sched_getcpu() != cpu || sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    others = allowed;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others))
        sched_setaffinity(0, sizeof allowed, &allowed);
}

#else

static int current_cpu(void) { return -1; }
static void leave_cpu(int cpu) { (void)cpu; }

#endif

static void *work(void *argument)
{
    const int thread = (int)(long)argument;
    unsigned seen = team.born[thread];
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load_explicit(&team.round, memory_order_acquire) == seen; i++)
            RELAX();
        if (atomic_load_explicit(&team.round, memory_order_acquire) == seen) {
            pthread_mutex_lock(&team.sleep);
            atomic_fetch_add(&team.sleepers, 1);
            while (atomic_load(&team.round) == seen)
                pthread_cond_wait(&team.wake, &team.sleep);
            atomic_fetch_sub(&team.sleepers, 1);
            pthread_mutex_unlock(&team.sleep);
            leave_cpu(team.caller_cpu);
        }
        seen = atomic_load_explicit(&team.round, memory_order_acquire);
        if (thread < team.threads)
            team.body(team.job, thread, team.threads);
        atomic_fetch_sub_explicit(&team.working, 1, memory_order_release);
    }
    return NULL;
}

/* In a forked child only the forking thread lives on. */
static void forget_workers(void)
{
    pthread_mutex_init(&team.owner, NULL);
    pthread_mutex_init(&team.sleep, NULL);
    pthread_cond_init(&team.wake, NULL);
    team.started = 0;
    atomic_store(&team.round, 0);
    atomic_store(&team.working, 0);
    atomic_store(&team.arrived, 0);
    atomic_store(&team.sleepers, 0);
}

static void register_fork_handler(void) { pthread_atfork(NULL, NULL, forget_workers); }

/* Start workers until there are threads - 1; returns how many threads the team has. */
static int fill(int threads)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork_handler);
    while (team.started < threads - 1) {
        pthread_t id;
        team.born[team.started + 1] = atomic_load(&team.round);
        if (pthread_create(&id, NULL, work, (void *)(long)(team.started + 1)))
            break;
        pthread_detach(id);
        team.started++;
    }
    return team.started + 1 < threads ? team.started + 1 : threads;
}

void team_run(team_body body, void *job, int threads)
{
    if (threads <= 1 || pthread_mutex_trylock(&team.owner)) {
        body(job, 0, 1);
        return;
    }
    threads = fill(threads < TEAM_MOST_THREADS ? threads : TEAM_MOST_THREADS);
    team.body = body;
    team.job = job;
    team.threads = threads;
    team.caller_cpu = current_cpu();
    atomic_store(&team.working, team.started);
    pthread_mutex_lock(&team.sleep);
    atomic_fetch_add(&team.round, 1);
    const int woken = atomic_load(&team.sleepers);
    if (woken)
        pthread_cond_broadcast(&team.wake);
    pthread_mutex_unlock(&team.sleep);
    if (woken)
        sched_yield();
    body(job, 0, threads);
    for (int i = 0; atomic_load_explicit(&team.working, memory_order_acquire); i++)
        if (i < SPINS)
            RELAX();
        else
            sched_yield();
    pthread_mutex_unlock(&team.owner);
}

void team_barrier(int threads)
{
    if (threads == 1)
        return;
    const unsigned here = atomic_load_explicit(&team.barrier, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team.arrived, 1, memory_order_acq_rel) == threads - 1) {
        atomic_store_explicit(&team.arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team.barrier, here + 1, memory_order_release);
        return;
    }
    for (int i = 0; atomic_load_explicit(&team.barrier, memory_order_acquire) == here; i++)
        if (i < SPINS)
            RELAX();
        else
            sched_yield();
}

#else

void team_run(team_body body, void *job, int threads)
{
    (void)threads;
    body(job, 0, 1);
}

void team_barrier(int threads) { (void)threads; }

#endif
