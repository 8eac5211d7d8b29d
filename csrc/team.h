/* A small team of threads that run one function together and meet at barriers.
 *
 * Why not OpenMP: libgomp's workers spin against NumPy's and SciPy's own pools, and hang in a
 * forked child. Here idle workers sleep after some 20 us, a fork leaves the child an empty team
 * that fills again when first used, and only one caller at a time has the team: others run alone,
 * so that the process never has more busy threads than asked for.
 * Without POSIX threads the team is the caller alone.
 */
#ifndef FASTLSTM_TEAM_H
#define FASTLSTM_TEAM_H

typedef void (*team_body)(void *job, int thread, int threads);

/* Run body(job, i, n) for i = 0..n-1, the caller being thread 0; n <= threads is 1 where the team
 * is busy or no thread can be started. Returns when all are done. */
void team_run(team_body body, void *job, int threads);

/* Within a body: wait until all `threads` have come here. */
void team_barrier(int threads);

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
