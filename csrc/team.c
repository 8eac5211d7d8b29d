#include "team.h"

#if defined(__unix__) || defined(__APPLE__)

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

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
    atomic_uint round;     /* counts calls; a change starts the workers */
    atomic_int working;    /* workers that have not finished this round */
    atomic_int arrived;    /* at the current barrier */
    atomic_uint barrier;   /* counts barriers passed */
} team = {.owner = PTHREAD_MUTEX_INITIALIZER,
          .sleep = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER};

static void *work(void *argument)
{
    const int thread = (int)(long)argument;
    unsigned seen = team.born[thread];
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load_explicit(&team.round, memory_order_acquire) == seen; i++)
            RELAX();
        if (atomic_load_explicit(&team.round, memory_order_acquire) == seen) {
            pthread_mutex_lock(&team.sleep);
            while (atomic_load(&team.round) == seen)
                pthread_cond_wait(&team.wake, &team.sleep);
            pthread_mutex_unlock(&team.sleep);
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
    atomic_store(&team.working, team.started);
    pthread_mutex_lock(&team.sleep);
    atomic_fetch_add(&team.round, 1);
    pthread_cond_broadcast(&team.wake);
    pthread_mutex_unlock(&team.sleep);
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
