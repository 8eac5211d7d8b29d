/* fastlstm from C: recurrent layers that are called without the interpreter.
 *
 *     #include <Python.h>
 *     #include <fastlstm.h>                  // found with fastlstm.get_include()
 *
 *     if (fastlstm_import() < 0) return NULL;            // once, when your module is imported
 *     fastlstm_layer layer = {.size = sizeof layer, .cell = FASTLSTM_LSTM, .input_size = I,
 *                             .hidden_size = H, .w_ih = w_ih, .w_hh = w_hh, .b = b};
 *     fastlstm_plan *plan;
 *     int status = fastlstm_f32->create(&plan, &layer);  // FASTLSTM_OK, or see `message`
 *     fastlstm_state *state = aligned_alloc(64, fastlstm_f32->state_size(plan, 1));
 *     status = fastlstm_f32->init_state(plan, state, 1);
 *     for (;;) fastlstm_f32->step(state, x, y);          // x (1, I), y (1, H)
 *
 * A plan is one layer in one direction; a stack is a plan per layer, y of one being x of the next.
 * `fastlstm_f32` computes in float, `fastlstm_f64` in double; a "real" below is that type, and all
 * that a plan, a state or a tape meets must be of the same one.
 *
 * Sizes, as everywhere in fastlstm: T time steps, B rows of the batch, I input size, H hidden size,
 * R what is fed back (the projection's size, or H), G gates (LSTM 4, coupled and GRU 3, RNN 1). An
 * array (T, B, I) is contiguous, the last dimension fastest, aligned as its type asks for.
 *
 * Rules for all functions:
 * a) None needs the interpreter or the GIL, throws, or prints. Only `create` allocates and only
 *    `destroy` frees; no other allocates, takes a lock or makes a system call, with the exception in
 *    `backward`. All run on the calling thread alone.
 * b) A plan is not changed by its use: any number of threads may use one at once, each with states,
 *    workspaces and tapes of its own.
 * c) States, workspaces and tapes are the caller's memory, of the size that the function of that
 *    name returns (a multiple of 64) and aligned to 64 bytes. Their content is private.
 * d) No pointer is kept after a call, but for the plan, to which states and tapes point: it must
 *    outlive them.
 * e) Arguments may not overlap and not be NULL, except where it is said. Sizes and alignments are
 *    checked, the content of arrays is not; NaN and infinity propagate.
 * f) Results are the bits of fastlstm's Python functions on the same machine and instruction set:
 *    step by step or as a sequence, alone or in a batch.
 */
#ifndef FASTLSTM_H
#define FASTLSTM_H

#include <stddef.h>

/* Grows when something already there changes; a table may gain functions at its end without. */
#define FASTLSTM_API_VERSION 1u
#define FASTLSTM_ALIGNMENT 64

enum {                          /* what functions return */
    FASTLSTM_OK = 0,
    FASTLSTM_NO_MEMORY = 1,
    FASTLSTM_BAD_LAYER = 2,     /* a field is out of range, or does not fit the others */
    FASTLSTM_BAD_SIZE = 3,      /* T < 0, B < 1, or either beyond 2^28 */
    FASTLSTM_UNALIGNED = 4,     /* of the caller's memory: see rule c */
    FASTLSTM_NOT_TRAINABLE = 5  /* the plan was made without `training` */
};

enum {                          /* cells; gates of the arrays in this order, each of H rows */
    FASTLSTM_LSTM = 1,          /* i, f, g, o */
    FASTLSTM_LSTM_COUPLED,      /* i, g, o; f = 1 - i */
    FASTLSTM_GRU,               /* r, z, n; b has a fourth part, b_hn, within the reset */
    FASTLSTM_GRU_RESET_BEFORE,  /* r, z, n; the reset is before the product, as in ONNX's default */
    FASTLSTM_RNN
};

enum {                          /* ONNX's activations */
    FASTLSTM_DEFAULT = 0,       /* sigmoid for gates, else tanh */
    FASTLSTM_SIGMOID, FASTLSTM_TANH, FASTLSTM_RELU, FASTLSTM_AFFINE, FASTLSTM_LEAKY_RELU,
    FASTLSTM_THRESHOLDED_RELU, FASTLSTM_SCALED_TANH, FASTLSTM_HARD_SIGMOID, FASTLSTM_ELU,
    FASTLSTM_SOFTSIGN, FASTLSTM_SOFTPLUS
};

typedef struct {
    int kind;
    double alpha, beta;         /* read where ONNX has them; nothing is put in the place of 0 */
} fastlstm_activation;

/* What a plan is made of: set all to 0, then what there is. The arrays are only read while `create`
 * or `update` runs. The equations are those of lstm_forward, gru_forward and rnn_forward. */
typedef struct {
    size_t size;                /* sizeof(fastlstm_layer) */
    int cell;
    int reverse;                /* sequences are run from their last step to their first */
    int training;               /* prepare for forward_tape and backward; takes twice the memory */
    ptrdiff_t input_size;       /* I, 0 to 2^28 */
    ptrdiff_t hidden_size;      /* H, 1 to 2^28 */
    ptrdiff_t proj_size;        /* R of an LSTM with a projection, or 0 */
    const void *w_ih;           /* (G * H, I); may be NULL if I is 0 */
    const void *w_hh;           /* (G * H, R) */
    const void *b;              /* (G * H,), GRU (4 * H,); or NULL for 0 */
    const void *w_proj;         /* (R, H); NULL without a projection */
    const void *peephole;       /* LSTM only: (3, H) i, f, o, coupled (2, H) i, o; or NULL */
    const void *layer_norm;     /* LSTM only: (2 * G + 2, H); or NULL */
    fastlstm_activation gate, candidate, output; /* GRU: gate, candidate; RNN: gate, default tanh */
    double clip, cell_clip, proj_clip;           /* bounds; 0 for none. clip: not with training */
    double zoneout_h, zoneout_c;                 /* 0 to 1: the expectation of zoneout */
} fastlstm_layer;

/* What `backward` takes and where it puts its results; set all to 0, then what there is. */
typedef struct {
    size_t size;                /* sizeof(fastlstm_gradients) */
    const void *dy;             /* (T, B, R); or NULL for 0, as the next two */
    const void *dh_n;           /* (B, R) */
    const void *dc_n;           /* (B, H); LSTM only */
    void *dx;                   /* (T, B, I) overwritten; may be NULL if I is 0 */
    void *dh_0;                 /* (B, R) overwritten; may be dh_n; or NULL: not wanted */
    void *dc_0;                 /* (B, H) overwritten; may be dc_n; or NULL */
    void *dw_ih;                /* in the shapes of the layer's arrays. These are ADDED TO; */
    void *dw_hh;                /* all but dw_ih and dw_hh may be NULL: not wanted */
    void *db;
    void *dw_proj;
    void *dpeephole;
    void *dlayer_norm;
} fastlstm_gradients;

typedef struct fastlstm_plan fastlstm_plan;   /* packed weights */
typedef struct fastlstm_state fastlstm_state; /* h and c of B rows, ready for the next step */
typedef struct fastlstm_tape fastlstm_tape;   /* what backward needs of a forward call */

typedef struct {
    unsigned version;           /* FASTLSTM_API_VERSION */
    size_t size;                /* sizeof(fastlstm_api), of the installed fastlstm */

    /* A status in words; static memory. */
    const char *(*message)(int status);

    /* --- plans ------------------------------------------------------------------------------- */

    /* *plan := packed copies of the layer's arrays; NULL unless FASTLSTM_OK is returned. */
    int (*create)(fastlstm_plan **plan, const fastlstm_layer *layer);

    /* Take other values of the arrays, all else being as it was in `create`; states go on with
     * them. Nobody else may use the plan meanwhile. */
    int (*update)(fastlstm_plan *plan, const fastlstm_layer *layer);

    /* `plan` may be NULL. */
    void (*destroy)(fastlstm_plan *plan);

    /* --- states ------------------------------------------------------------------------------ */

    /* Bytes of a state of B rows; 0 if B is out of range. */
    size_t (*state_size)(const fastlstm_plan *plan, ptrdiff_t B);

    /* Make a state of zeros of the caller's memory. It may be used until that is freed, by one
     * thread at a time, and not be moved: it points into itself. */
    int (*init_state)(const fastlstm_plan *plan, fastlstm_state *state, ptrdiff_t B);

    /* h (B, R), c (B, H): copied; NULL for zeros. Without a cell state c is not looked at. */
    void (*set_state)(fastlstm_state *state, const void *h, const void *c);

    /* h (B, R), c (B, H): written; NULL: not wanted. Without a cell state c is left as it is. */
    void (*get_state)(const fastlstm_state *state, void *h, void *c);

    /* --- forward ----------------------------------------------------------------------------- */

    /* One time step from x (B, I) to y (B, R), which may be x. */
    void (*step)(fastlstm_state *state, const void *x, void *y);

    /* Bytes of a workspace for T steps of B rows, also for `backward` if the plan is trainable;
     * enough for fewer steps too. 0 if T or B are out of range. */
    size_t (*workspace_size)(const fastlstm_plan *plan, ptrdiff_t T, ptrdiff_t B);

    /* T steps from x (T, B, I) to y (T, B, R), or NULL: not wanted. The state goes on from where
     * it is, to the last step. The workspace is needed during the call only. */
    int (*forward)(fastlstm_state *state, ptrdiff_t T, const void *x, void *y, void *workspace);

    /* --- training ---------------------------------------------------------------------------- */

    /* Bytes of a tape of T steps of B rows; 0 if T or B are out of range. */
    size_t (*tape_size)(const fastlstm_plan *plan, ptrdiff_t T, ptrdiff_t B);

    /* As `forward`, and write the tape, which keeps no x. */
    int (*forward_tape)(fastlstm_state *state, ptrdiff_t T, const void *x, void *y,
                        fastlstm_tape *tape, void *workspace);

    /* Back through the time of a tape: x (T, B, I) as it was in forward_tape, the plan not updated
     * since. A tape may be used any number of times. On a CPU with neither AVX2 nor NEON the
     * weights' gradients are SciPy's BLAS, which may allocate and have threads of its own. */
    int (*backward)(const fastlstm_tape *tape, const void *x, const fastlstm_gradients *gradients,
                    void *workspace);

    /* --- episodes ---------------------------------------------------------------------------- */

    /* resets (B,): h and c of the rows where it is not 0 become zero. */
    void (*reset_rows)(fastlstm_state *state, const unsigned char *resets);

    /* As `forward`, or as `forward_tape` if `tape` is not NULL, with episodes: where resets (T, B)
     * is not 0, one begins with that step. No state passes between it and the step before in time,
     * in neither direction, and no gradient; a plan that is `reverse` has nothing to do with
     * resets[0]. NULL for none. The tape keeps its own copy. */
    int (*forward_episodes)(fastlstm_state *state, ptrdiff_t T, const void *x,
                            const unsigned char *resets, void *y, fastlstm_tape *tape,
                            void *workspace);
} fastlstm_api;

/* --- import ---------------------------------------------------------------------------------- */

/* The tables are constant and live as long as the process; they may be handed to other translation
 * units, and to code that knows nothing of Python and includes this header alone. */
#ifdef Py_PYTHON_H

#if defined(__GNUC__)
#define FASTLSTM_MAYBE_UNUSED __attribute__((unused))
#else
#define FASTLSTM_MAYBE_UNUSED
#endif

static const fastlstm_api *fastlstm_f32 FASTLSTM_MAYBE_UNUSED = NULL;
static const fastlstm_api *fastlstm_f64 FASTLSTM_MAYBE_UNUSED = NULL;

/* Set fastlstm_f32 and fastlstm_f64 of this translation unit, with the GIL held. Returns 0, or -1
 * with ImportError set: fastlstm is not installed, or not one that this header is for. */
static inline FASTLSTM_MAYBE_UNUSED int fastlstm_import(void)
{
    static const char *const names[2] = {"fastlstm.capi.capsule_f32", "fastlstm.capi.capsule_f64"};
    const fastlstm_api *found[2];
    int i;
    for (i = 0; i < 2; i++) {
        found[i] = (const fastlstm_api *)PyCapsule_Import(names[i], 0);
        if (found[i] == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_ImportError))
                PyErr_Format(PyExc_ImportError, "fastlstm: this version has no C API");
            return -1;
        }
        if (found[i]->version != FASTLSTM_API_VERSION || found[i]->size < sizeof(fastlstm_api)) {
            PyErr_Format(PyExc_ImportError,
                         "fastlstm: compiled for C API %u of %zu bytes, installed is %u of %zu",
                         FASTLSTM_API_VERSION, sizeof(fastlstm_api), found[i]->version,
                         found[i]->size);
            return -1;
        }
    }
    fastlstm_f32 = found[0];
    fastlstm_f64 = found[1];
    return 0;
}

#endif
#endif
