#define _GNU_SOURCE /* sched_getcpu, CPU_SET */

#include "team.h"

#include <stddef.h>
#include <stdint.h>
#include <time.h>

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

/* --- alone ---------------------------------------------------------------------------------------- */

/* The line of a block in its order, or of the next blocks, whose task can be run; -1: none. */
static int find_ready(const team_lines *work, int home)
{
    for (int i = 0; i < work->lines; i++) {
        const int line = (home - home % work->block + i) % work->lines;
        if (work->ready(work->job, line) > 0)
            return line;
    }
    return -1;
}

static void run_lines_alone(const team_lines *work, long long until)
{
    for (int line = find_ready(work, 0); line >= 0; line = find_ready(work, line)) {
        work->run(work->job, line);
        if (team_now() > until)
            return;
    }
}

static void run_phases_alone(const team_phases *work)
{
    for (int pieces; (pieces = work->next(work->job));)
        for (int piece = 0; piece < pieces; piece++)
            work->run(work->job, piece);
}

#if defined(__unix__) || defined(__APPLE__)

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

long long team_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

enum {
    PLACES = 8,                 /* calls that may have helpers at once */
    SPIN = 20000,               /* ns that a thread waits awake: it bridges the gap between the layers of a
                                 * network, and is not in the way of other pools */
    HELPER_SPIN = 100000,       /* ns that a helper does, in a call that may soon have more to do */
    CALL_AGAIN = 200000,        /* ns after which helpers that went are called once more */
    PATIENCE = 50000,           /* ns that a caller waits for a task beyond a few times what its own took */
    HELD_UP = 200000,           /* ns that it waits for a phase: pieces take less, a lost CPU 3 ms */
    LEAST_BAN = 10000000,       /* ns that a worker is kept out */
    MOST_BAN = 1000000000
};

/* --- claims ---------------------------------------------------------------------------------------
 *
 * A call has a place. A claim is a compare-and-swap on one of its cells, whose upper half is the
 * number of the call. So a worker that lost its CPU while it looked for work does no harm when it
 * comes back into another call, and nobody has to wait for it: what belongs to a call is only
 * touched by who holds a claim. */

typedef uint64_t cell;

enum { FREE = 0, DONE = 1, HELD = 2 }; /* of a line; HELD + the worker that holds it */
#define CELL(round, state) ((cell)(round) << 32 | (uint32_t)(state))

typedef struct {
    _Alignas(64) _Atomic cell value;
} padded_cell;

typedef struct {
    atomic_flag taken;
    uint32_t round;             /* counts calls */
    atomic_uint open;           /* the round that helpers are wanted for, or 0 */
    atomic_int wanted, helpers;
    atomic_int is_phases;
    const void *work;           /* team_lines or team_phases: for who holds a claim */
    atomic_int count;           /* of lines, or of shares of each phase */
    atomic_int block;
    atomic_int left;            /* lines that are not done */
    atomic_int stopped;         /* no more claims of helpers */
    _Alignas(64) _Atomic cell phase; /* round:32, number of the phase:16, its pieces:16 */
    _Alignas(64) atomic_int pieces_done;
    _Alignas(64) atomic_uint events; /* tasks that are done */
    atomic_int caller_sleeps;
    pthread_mutex_t lock;       /* of the two */
    pthread_cond_t woken;
    padded_cell cells[TEAM_MOST_LINES];
} place;

typedef struct {
    atomic_int asleep;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    atomic_llong ban, banned_until;
    _Atomic(place *) visits;
#if defined(__linux__)
    atomic_int id;              /* of the thread, 0: not yet known */
    int kept_off;               /* the CPU that it is to leave to a caller, or -1 */
#endif
} worker;

static struct {
    pthread_mutex_t growing;
    atomic_int started;         /* workers that exist, numbered 1..started */
    atomic_uint calls;          /* a change is what workers look for */
    atomic_int busy;            /* callers and helpers */
    place places[PLACES];
    worker workers[TEAM_MOST_THREADS];
} team = {.growing = PTHREAD_MUTEX_INITIALIZER};

static void wake_caller(place *p)
{
    if (atomic_load(&p->caller_sleeps)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->woken);
        pthread_mutex_unlock(&p->lock);
    }
}

/* Sleep until a word is no longer what was seen: events, or the phase. */
#define SLEEP_WHILE(p, word, seen)                                                                 \
    do {                                                                                           \
        pthread_mutex_lock(&(p)->lock);                                                            \
        atomic_store(&(p)->caller_sleeps, 1);                                                      \
        while (atomic_load(&(p)->word) == (seen))                                                  \
            pthread_cond_wait(&(p)->woken, &(p)->lock);                                            \
        atomic_store(&(p)->caller_sleeps, 0);                                                      \
        pthread_mutex_unlock(&(p)->lock);                                                          \
    } while (0)

static void relax(int times)
{
    for (int i = 0; i < times; i++)
        RELAX();
}

/* --- who helps ------------------------------------------------------------------------------------ */

static int is_banned(int who)
{
    const long long until = atomic_load_explicit(&team.workers[who].banned_until, memory_order_relaxed);
    return until && team_now() < until;
}

static void ban(int who)
{
    worker *w = &team.workers[who];
    long long length = 2 * atomic_load(&w->ban);
    length = length < LEAST_BAN ? LEAST_BAN : length > MOST_BAN ? MOST_BAN : length;
    atomic_store(&w->ban, length);
    atomic_store(&w->banned_until, team_now() + length);
}

/* A call that went well shortens the next ban. */
static void relent(int who)
{
    worker *w = &team.workers[who];
    const long long length = atomic_load(&w->ban);
    if (length && atomic_load(&w->banned_until) <= team_now())
        atomic_store(&w->ban, length < LEAST_BAN ? 0 : length - length / 16);
}

/* In a virtual machine a sleeping CPU can look busy to the kernel, which then wakes the worker on the
 * caller's own CPU, to wait there for milliseconds: keep it off. */
static void keep_off_this_cpu(worker *w)
{
#if defined(__linux__)
    cpu_set_t allowed;
    const int cpu = sched_getcpu();
    if (cpu < 0 || w->kept_off == cpu || sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    CPU_CLR(cpu, &allowed);
    const int id = atomic_load(&w->id);
    if (CPU_COUNT(&allowed) && id && !sched_setaffinity(id, sizeof allowed, &allowed))
        w->kept_off = cpu;
#else
    (void)w;
#endif
}

/* Wake one worker that sleeps, if there is one. Each wakes another one when it comes. */
static void wake_one(void)
{
    const int started = atomic_load(&team.started);
    for (int who = 1; who <= started; who++) {
        worker *w = &team.workers[who];
        if (atomic_load(&w->asleep) && !is_banned(who)) {
            pthread_mutex_lock(&w->lock);
            if (atomic_load(&w->asleep)) {
                atomic_store(&w->asleep, 0);
                keep_off_this_cpu(w);
                pthread_cond_signal(&w->woken);
                pthread_mutex_unlock(&w->lock);
                return;
            }
            pthread_mutex_unlock(&w->lock);
        }
    }
}

static void help_lines(place *p, uint32_t round, int who);
static void help_phases(place *p, uint32_t round, int who);

static void visit(place *p, uint32_t round, int who)
{
    if (atomic_fetch_add(&p->helpers, 1) < atomic_load(&p->wanted)) {
        if (atomic_fetch_add(&team.busy, 1) < most_threads) {
            if (atomic_load(&p->helpers) < atomic_load(&p->wanted))
                wake_one();
            atomic_store(&team.workers[who].visits, p);
            (atomic_load(&p->is_phases) ? help_phases : help_lines)(p, round, who);
            atomic_store(&team.workers[who].visits, NULL);
            relent(who);
        }
        atomic_fetch_sub(&team.busy, 1);
    }
    atomic_fetch_sub(&p->helpers, 1);
}

static void *work_forever(void *argument)
{
    const int who = (int)(intptr_t)argument;
    worker *w = &team.workers[who];
#if defined(__linux__)
    atomic_store(&w->id, (int)syscall(SYS_gettid));
#endif
    for (;;) {
        const unsigned seen = atomic_load(&team.calls);
        if (!is_banned(who))
            for (int i = 0; i < PLACES; i++) {
                const uint32_t round = atomic_load(&team.places[i].open);
                if (round)
                    visit(&team.places[i], round, who);
            }
        const long long start = team_now();
        while (atomic_load(&team.calls) == seen && team_now() < start + SPIN)
            relax(16);
        if (atomic_load(&team.calls) != seen)
            continue;
        pthread_mutex_lock(&w->lock);
        atomic_store(&w->asleep, 1);
        while (atomic_load(&w->asleep) && atomic_load(&team.calls) == seen)
            pthread_cond_wait(&w->woken, &w->lock);
        atomic_store(&w->asleep, 0);
        pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

static void empty_team(void)
{
    pthread_mutex_init(&team.growing, NULL);
    atomic_store(&team.started, 0);
    atomic_store(&team.busy, 0);
    for (int i = 0; i < PLACES; i++) {
        place *p = &team.places[i];
        atomic_flag_clear(&p->taken);
        atomic_store(&p->open, 0);
        atomic_store(&p->helpers, 0);
        atomic_store(&p->block, 1);
        atomic_store(&p->caller_sleeps, 0);
        pthread_mutex_init(&p->lock, NULL);
        pthread_cond_init(&p->woken, NULL);
    }
}

/* In a forked child only the forking thread lives on. */
static void register_fork_handler(void)
{
    empty_team();
    pthread_atfork(NULL, NULL, empty_team);
}

/* Start workers until there are `wanted`, or as many as can be had; their signals are the others'. */
static void start_workers(int wanted)
{
    if (atomic_load(&team.started) >= wanted || pthread_mutex_trylock(&team.growing))
        return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int who = atomic_load(&team.started) + 1; who <= wanted; who++) {
        pthread_t thread;
        worker *w = &team.workers[who];
        atomic_store(&w->asleep, 0);
        atomic_store(&w->ban, 0);
        atomic_store(&w->banned_until, 0);
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->woken, NULL);
#if defined(__linux__)
        atomic_store(&w->id, 0);
        w->kept_off = -1;
#endif
        if (pthread_create(&thread, NULL, work_forever, (void *)(intptr_t)who))
            break;
        pthread_detach(thread);
        atomic_store(&team.started, who);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_mutex_unlock(&team.growing);
}

/* A place for a call that wants so many threads, or NULL: nobody could help. */
static place *take_place(int threads)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int awaited = 0;
    if (threads <= 1)
        return NULL;
    pthread_once(&once, register_fork_handler);
    start_workers(threads - 1);
    for (int who = 1; who <= atomic_load(&team.started) && !awaited; who++)
        awaited = !is_banned(who);
    if (!awaited || atomic_load(&team.busy) >= most_threads)
        return NULL;
    for (int i = 0; i < PLACES; i++)
        if (!atomic_flag_test_and_set(&team.places[i].taken)) {
            place *p = &team.places[i];
            p->round = p->round + 1 ? p->round + 1 : 1;
            atomic_store(&p->wanted, threads - 1);
            atomic_store(&p->stopped, 0);
            return p;
        }
    return NULL;
}

static void open_place(place *p)
{
    atomic_fetch_add(&team.busy, 1);
    atomic_store(&p->open, p->round);
    atomic_fetch_add(&team.calls, 1);
    wake_one();
}

static void leave_place(place *p)
{
    atomic_fetch_sub(&team.busy, 1);
    atomic_flag_clear(&p->taken);
}

/* --- lines ---------------------------------------------------------------------------------------- */

/* Claim a line whose next task is ready, and run it. The line, -1: there was none, -2: nor will be. */
static int run_a_line(place *p, uint32_t round, int who, int home)
{
    const int count = atomic_load_explicit(&p->count, memory_order_relaxed);
    const int begin = home - home % atomic_load_explicit(&p->block, memory_order_relaxed);
    for (int i = 0; i < count; i++) {
        const int line = (begin + i) % count;
        _Atomic cell *value = &p->cells[line].value;
        cell expected = CELL(round, FREE);
        const cell now = atomic_load_explicit(value, memory_order_relaxed);
        if (now >> 32 != round)
            return -2;
        if (now != expected || !atomic_compare_exchange_strong(value, &expected, CELL(round, HELD + who)))
            continue;
        const team_lines *work = p->work;
        int ready = work->ready(work->job, line);
        const int ran = ready > 0;
        if (ran) {
            work->run(work->job, line);
            ready = work->ready(work->job, line);
        }
        if (ready < 0)
            atomic_fetch_sub(&p->left, 1);
        atomic_store(value, CELL(round, ready < 0 ? DONE : FREE));
        if (ran || ready < 0 || atomic_load(&p->caller_sleeps)) {
            atomic_fetch_add(&p->events, 1);
            wake_caller(p);
        }
        if (ran)
            return line;
    }
    return -1;
}

static void help_lines(place *p, uint32_t round, int who)
{
    const int count = atomic_load(&p->count);
    int home = count ? who * count / (atomic_load(&p->wanted) + 1) % count : 0;
    long long idle_since = 0;
    while (!atomic_load(&p->stopped) && atomic_load(&p->open) == round) {
        const int line = run_a_line(p, round, who, home);
        if (line == -2)
            return;
        if (line >= 0) {
            home = line;
            idle_since = 0;
        } else if (!idle_since) {
            idle_since = team_now();
        } else if (team_now() > idle_since + HELPER_SPIN) {
            return;
        } else {
            relax(16);
        }
    }
}

/* Keep out who holds a line. */
static void ban_holders(place *p)
{
    for (int line = 0; line < atomic_load(&p->count); line++) {
        const uint32_t state = (uint32_t)atomic_load(&p->cells[line].value);
        if (state > HELD)
            ban((int)(state - HELD));
    }
}

/* What a caller does who finds nothing to do but lines that others hold: it waits awake as long as a few
 * of its own tasks took, then looks once more and sleeps. */
typedef struct {
    long long since, longest;
    int announced;
} patience;

static void wait_a_little(place *p, patience *caller, unsigned seen)
{
    const long long now = team_now();
    if (!caller->since) {
        caller->since = now;
    } else if (caller->announced) {
        SLEEP_WHILE(p, events, seen);
        caller->announced = 0;
        caller->since = 0;
    } else if (now > caller->since + 4 * caller->longest + PATIENCE) {
        ban_holders(p);
        atomic_store(&p->caller_sleeps, 1); /* from now on whoever lets a line go says so */
        caller->announced = 1;
    } else {
        relax(16);
    }
}

/* Nobody may claim a line any more; who holds one is waited for. */
static void close_lines(place *p, int lines, patience *caller)
{
    atomic_store(&p->stopped, 1);
    atomic_store(&p->open, 0);
    for (int line = 0; line < lines; line++)
        for (;;) {
            const unsigned seen = atomic_load(&p->events);
            cell expected = CELL(p->round, FREE);
            if (atomic_compare_exchange_strong(&p->cells[line].value, &expected, CELL(p->round, DONE))
                || expected == CELL(p->round, DONE))
                break;
            wait_a_little(p, caller, seen);
        }
    atomic_store(&p->caller_sleeps, 0);
}

void team_run_lines(const team_lines *work, int threads, long long until)
{
    place *p = work->lines > 1 ? take_place(threads) : NULL;
    if (!p) {
        run_lines_alone(work, until);
        return;
    }
    patience caller = {0, 0, 0};
    int home = 0;
    p->work = work;
    atomic_store(&p->is_phases, 0);
    atomic_store(&p->count, work->lines);
    atomic_store(&p->block, work->block);
    atomic_store(&p->left, work->lines);
    for (int line = 0; line < work->lines; line++)
        atomic_store(&p->cells[line].value, CELL(p->round, FREE));
    open_place(p);
    long long now = team_now(), called = now;
    while (atomic_load(&p->left) && now <= until) {
        const unsigned seen = atomic_load(&p->events);
        const long long before = now;
        const int line = run_a_line(p, p->round, 0, home);
        now = team_now();
        if (line < 0) {
            if (atomic_load(&p->left))
                wait_a_little(p, &caller, seen);
            continue;
        }
        home = line;
        caller.since = 0;
        caller.longest = now - before > caller.longest ? now - before : caller.longest;
        if (atomic_load(&p->helpers) < atomic_load(&p->wanted) && now > called + CALL_AGAIN) {
            atomic_fetch_add(&team.calls, 1);
            wake_one();
            called = now;
        }
    }
    close_lines(p, work->lines, &caller);
    leave_place(p);
}

/* --- phases --------------------------------------------------------------------------------------- */

enum { MOST_PHASES = 20000 };
#define PHASE(round, number, pieces) ((cell)(round) << 32 | (cell)(number) << 16 | (cell)(pieces))

/* Claim a piece of a share of the phase `now`, or -1. A cell is round, phase and how many are taken:
 * as long as a share has pieces that are not taken, its phase cannot end. */
static int claim_piece(place *p, cell now, int share)
{
    const int pieces = now & 0xffff, shares = atomic_load_explicit(&p->count, memory_order_relaxed);
    const int first = pieces * share / shares, size = pieces * (share + 1) / shares - first;
    _Atomic cell *value = &p->cells[share].value;
    cell v = atomic_load_explicit(value, memory_order_relaxed);
    for (;;) {
        const cell taken = v >> 16 == now >> 16 ? v & 0xffff : 0;
        if (v >> 16 > now >> 16 || v >> 32 != now >> 32 || (int)taken >= size)
            return -1;
        if (atomic_compare_exchange_weak(value, &v, now - pieces + taken + 1))
            return first + (int)taken;
    }
}

/* Run what is left of the phase `now`, own pieces first. Who runs the last piece prepares the next one. */
static void run_a_phase(place *p, cell now, int who)
{
    const int shares = atomic_load_explicit(&p->count, memory_order_relaxed);
    const team_phases *work;
    int done = 0;
    for (int i = 0; i < shares; i++)
        for (int piece; (piece = claim_piece(p, now, (who + i) % shares)) >= 0; done++) {
            work = p->work;
            work->run(work->job, piece);
        }
    if (done && atomic_fetch_add(&p->pieces_done, done) + done == (int)(now & 0xffff)) {
        const int number = (now >> 16 & 0xffff) + 1;
        work = p->work;
        atomic_store_explicit(&p->pieces_done, 0, memory_order_relaxed); /* the next store publishes it */
        atomic_store(&p->phase, PHASE(now >> 32, number, number > MOST_PHASES ? 0 : work->next(work->job)));
        wake_caller(p);
    }
}

/* Wait awake until the phase is no longer `now`; 0 if that takes longer than `most` ns. */
static int phase_ends(place *p, cell now, long long most)
{
    long long since = 0;
    for (int i = 1; atomic_load_explicit(&p->phase, memory_order_acquire) == now; i++) {
        RELAX();
        if (i % 32 == 0) { /* looking at the clock takes as long as a phase */
            if (!since)
                since = team_now();
            if (team_now() > since + most)
                return 0;
        }
    }
    return 1;
}

static void help_phases(place *p, uint32_t round, int who)
{
    while (!atomic_load(&p->stopped)) {
        const cell now = atomic_load_explicit(&p->phase, memory_order_acquire);
        if (now >> 32 != round || !(now & 0xffff))
            return;
        run_a_phase(p, now, who);
        if (!phase_ends(p, now, HELPER_SPIN))
            return;
    }
}

void team_run_phases(const team_phases *work, int threads)
{
    place *p = take_place(threads);
    if (!p) {
        run_phases_alone(work);
        return;
    }
    const int pieces = work->next(work->job);
    p->work = work;
    atomic_store(&p->is_phases, 1);
    atomic_store(&p->count, threads < TEAM_MOST_LINES ? threads : TEAM_MOST_LINES);
    for (int share = 0; share < atomic_load(&p->count); share++)
        atomic_store(&p->cells[share].value, PHASE(p->round, 0, 0));
    atomic_store(&p->pieces_done, 0);
    atomic_store(&p->phase, PHASE(p->round, 1, pieces));
    open_place(p);
    for (cell now; (now = atomic_load(&p->phase)) & 0xffff;) {
        run_a_phase(p, now, 0);
        if (!phase_ends(p, now, HELD_UP)) { /* from here on alone */
            atomic_store(&p->stopped, 1);
            for (int who = 1; who <= atomic_load(&team.started); who++)
                if (atomic_load(&team.workers[who].visits) == p)
                    ban(who);
            SLEEP_WHILE(p, phase, now);
        }
    }
    atomic_store(&p->stopped, 1);
    atomic_store(&p->open, 0);
    leave_place(p);
}

#else

#if defined(_WIN32)
#include <windows.h>
long long team_now(void) { return (long long)GetTickCount64() * 1000000; }
#else
long long team_now(void) { return (long long)(clock() * (1e9 / CLOCKS_PER_SEC)); }
#endif

void team_run_lines(const team_lines *work, int threads, long long until)
{
    (void)threads;
    run_lines_alone(work, until);
}

void team_run_phases(const team_phases *work, int threads)
{
    (void)threads;
    run_phases_alone(work);
}

#endif
