/* Threads that help. Work is claimed, never assigned: a call begins with its own work at once, workers
 * that are free come and claim parts of it, and what nobody has claimed the caller does itself. So a
 * call never waits for a worker that has not begun.
 *
 * Why not OpenMP: libgomp's workers spin for milliseconds against NumPy's and SciPy's own pools, and
 * hang in a forked child. Here idle workers sleep after some 20 us, and a fork leaves the child an
 * empty team that fills again when first used.
 *
 * Several calls may have helpers at once; callers and helpers together are never more than
 * fastlstm_get_num_threads(), callers that are more work alone. A worker that held a call up, since
 * something else runs on its CPU, is kept out for 10 ms, then 20, ... up to a second.
 * Without POSIX threads every call works alone.
 */
#ifndef FASTLSTM_TEAM_H
#define FASTLSTM_TEAM_H

/* Work in lines. A line is a series of tasks that follow each other; tasks of different lines may be
 * run at the same time, as far as `ready` allows. Which thread runs a task must not matter. */
enum { TEAM_MOST_LINES = 256 };

typedef struct {
    void *job;
    int lines;                  /* at most TEAM_MOST_LINES */
    int block;                  /* so many lines in a row share memory: who ran one prefers them, */
                                /* in their order */
    /* Whether the next task of a line may be run: 1, not yet: 0, there is none: -1. It reads what
     * tasks of other lines write, see team_load. */
    int (*ready)(void *job, int line);
    void (*run)(void *job, int line);
} team_lines;

/* Run tasks until there are none, or until the time `until`: no task is begun after it. */
void team_run_lines(const team_lines *work, int threads, long long until);

/* Work in phases of at most 65535 pieces. The pieces of a phase may be run at the same time, each
 * thread having its own ones, which it finds in its cache, before it takes those of others. */
typedef struct {
    void *job;
    /* Prepare the next phase; the number of its pieces, 0 to stop. Nothing else runs meanwhile. */
    int (*next)(void *job);
    void (*run)(void *job, int piece);
} team_phases;

/* Run phases until `next` says to stop, or some ten thousand of them. */
void team_run_phases(const team_phases *work, int threads);

/* What one thread writes and others wait for. */
#if defined(__GNUC__)
#define team_load(value) __atomic_load_n(value, __ATOMIC_ACQUIRE)
#define team_store(value, to) __atomic_store_n(value, to, __ATOMIC_RELEASE)
#else
#define team_load(value) (*(value))
#define team_store(value, to) (*(value) = (to))
#endif

/* Nanoseconds from some moment on. */
long long team_now(void);

#define TEAM_MOST_THREADS 256

/* The largest number of threads that a call may use, 1 at first; set to the nearest in
 * 1..TEAM_MOST_THREADS. The library shows these symbols to whoever limits all pools of a process:
 * threadpoolctl, see fastlstm/threadpool.py. */
#ifdef _WIN32
#define TEAM_SHOWN __declspec(dllexport)
#else
#define TEAM_SHOWN __attribute__((visibility("default")))
#endif
TEAM_SHOWN int fastlstm_get_num_threads(void);
TEAM_SHOWN void fastlstm_set_num_threads(int threads);

#endif
