/* Times of single steps through the C API: see c_step.py, which compiles and calls this. */
#include <fastlstm.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* seconds (rounds,): of a step, on average over `steps`; x (steps, I). */
void time_steps(double *seconds, int rounds, int steps, const fastlstm_api *api,
                fastlstm_state *state, const float *x, int I, float *y)
{
    for (int round = 0; round < rounds; round++) {
        const double start = now();
        for (int t = 0; t < steps; t++)
            api->step(state, x + t * I, y);
        seconds[round] = (now() - start) / steps;
    }
}
