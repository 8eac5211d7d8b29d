# The C API for Cython: `from fastlstm cimport ...`, with fastlstm.get_include() among the include
# directories, and one call of fastlstm_import() when your module is imported. What everything
# means, shapes, lifetimes and aliasing, stands in fastlstm.h; all of it may be called without the
# GIL.

from libc.stddef cimport ptrdiff_t

# For memory that must be aligned to FASTLSTM_ALIGNMENT: Cython's own libc has nothing for it. The
# sizes that the API names are multiples of it, as C11 asks for.
cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "fastlstm.h":
    enum:
        FASTLSTM_API_VERSION
        FASTLSTM_ALIGNMENT

        FASTLSTM_OK
        FASTLSTM_NO_MEMORY
        FASTLSTM_BAD_LAYER
        FASTLSTM_BAD_SIZE
        FASTLSTM_UNALIGNED
        FASTLSTM_NOT_TRAINABLE

        FASTLSTM_LSTM
        FASTLSTM_LSTM_COUPLED
        FASTLSTM_GRU
        FASTLSTM_GRU_RESET_BEFORE
        FASTLSTM_RNN

        FASTLSTM_DEFAULT
        FASTLSTM_SIGMOID
        FASTLSTM_TANH
        FASTLSTM_RELU
        FASTLSTM_AFFINE
        FASTLSTM_LEAKY_RELU
        FASTLSTM_THRESHOLDED_RELU
        FASTLSTM_SCALED_TANH
        FASTLSTM_HARD_SIGMOID
        FASTLSTM_ELU
        FASTLSTM_SOFTSIGN
        FASTLSTM_SOFTPLUS

    ctypedef struct fastlstm_activation:
        int kind
        double alpha, beta

    ctypedef struct fastlstm_layer:
        size_t size
        int cell, reverse, training
        ptrdiff_t input_size, hidden_size, proj_size
        const void *w_ih
        const void *w_hh
        const void *b
        const void *w_proj
        const void *peephole
        const void *layer_norm
        fastlstm_activation gate, candidate, output
        double clip, cell_clip, proj_clip
        double zoneout_h, zoneout_c

    ctypedef struct fastlstm_gradients:
        size_t size
        const void *dy
        const void *dh_n
        const void *dc_n
        void *dx
        void *dh_0
        void *dc_0
        void *dw_ih
        void *dw_hh
        void *db
        void *dw_proj
        void *dpeephole
        void *dlayer_norm

    ctypedef struct fastlstm_plan:
        pass
    ctypedef struct fastlstm_state:
        pass
    ctypedef struct fastlstm_tape:
        pass

    ctypedef struct fastlstm_api:
        unsigned version
        size_t size
        const char *(*message)(int status) noexcept nogil
        int (*create)(fastlstm_plan **plan, const fastlstm_layer *layer) noexcept nogil
        int (*update)(fastlstm_plan *plan, const fastlstm_layer *layer) noexcept nogil
        void (*destroy)(fastlstm_plan *plan) noexcept nogil
        size_t (*state_size)(const fastlstm_plan *plan, ptrdiff_t B) noexcept nogil
        int (*init_state)(
            const fastlstm_plan *plan, fastlstm_state *state, ptrdiff_t B) noexcept nogil
        void (*set_state)(fastlstm_state *state, const void *h, const void *c) noexcept nogil
        void (*get_state)(const fastlstm_state *state, void *h, void *c) noexcept nogil
        void (*step)(fastlstm_state *state, const void *x, void *y) noexcept nogil
        size_t (*workspace_size)(
            const fastlstm_plan *plan, ptrdiff_t T, ptrdiff_t B) noexcept nogil
        int (*forward)(
            fastlstm_state *state, ptrdiff_t T, const void *x, void *y,
            void *workspace) noexcept nogil
        size_t (*tape_size)(const fastlstm_plan *plan, ptrdiff_t T, ptrdiff_t B) noexcept nogil
        int (*forward_tape)(
            fastlstm_state *state, ptrdiff_t T, const void *x, void *y, fastlstm_tape *tape,
            void *workspace) noexcept nogil
        int (*backward)(
            const fastlstm_tape *tape, const void *x, const fastlstm_gradients *gradients,
            void *workspace) noexcept nogil
        void (*reset_rows)(
            fastlstm_state *state, const unsigned char *resets) noexcept nogil
        int (*forward_episodes)(
            fastlstm_state *state, ptrdiff_t T, const void *x, const unsigned char *resets,
            void *y, fastlstm_tape *tape, void *workspace) noexcept nogil

    const fastlstm_api *fastlstm_f32
    const fastlstm_api *fastlstm_f64
    int fastlstm_import() except -1
