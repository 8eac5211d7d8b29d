# cython: language_level=3, boundscheck=False, wraparound=False
"""A Cython extension: score every window of a series with an LSTM, in parallel."""

from cython.parallel cimport parallel, prange
from libc.math cimport NAN
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import numpy as np

from fastlstm cimport (
    FASTLSTM_ALIGNMENT, FASTLSTM_LSTM, FASTLSTM_NO_MEMORY, FASTLSTM_OK, aligned_alloc,
    fastlstm_f32, fastlstm_import, fastlstm_layer, fastlstm_plan, fastlstm_state)

fastlstm_import()


cdef float score(
    fastlstm_state *state, void *workspace, float *h, const float *window, const float *readout,
    Py_ssize_t T, Py_ssize_t H,
) noexcept nogil:
    """readout (H,) . h_n behind a window (T, I)."""
    cdef float total = 0
    cdef Py_ssize_t unit
    fastlstm_f32.set_state(state, NULL, NULL)
    fastlstm_f32.forward(state, T, window, NULL, workspace)
    fastlstm_f32.get_state(state, h, NULL)
    for unit in range(H):
        total += readout[unit] * h[unit]
    return total


cdef void score_all(
    float *scores, const fastlstm_plan *plan, const float *series, const float *readout,
    Py_ssize_t T, Py_ssize_t I, Py_ssize_t H, Py_ssize_t windows, int threads,
) noexcept nogil:
    """scores (windows,): of series[w : w + T], or NaN without memory."""
    cdef fastlstm_state *state = NULL
    cdef void *workspace = NULL
    cdef float *h = NULL
    cdef Py_ssize_t w
    with parallel(num_threads=threads):  # a state, a workspace and an h for each thread
        state = <fastlstm_state *>aligned_alloc(
            FASTLSTM_ALIGNMENT, fastlstm_f32.state_size(plan, 1))
        workspace = aligned_alloc(FASTLSTM_ALIGNMENT, fastlstm_f32.workspace_size(plan, T, 1))
        h = <float *>malloc(H * sizeof(float))
        if state != NULL:
            fastlstm_f32.init_state(plan, state, 1)
        for w in prange(windows, schedule="static"):
            if state == NULL or workspace == NULL or h == NULL:
                scores[w] = NAN
            else:
                scores[w] = score(state, workspace, h, series + w * I, readout, T, H)
        free(state)
        free(workspace)
        free(h)


def window_scores(
    const float[:, ::1] w_ih, const float[:, ::1] w_hh, const float[::1] b,
    const float[::1] readout, const float[:, ::1] series, Py_ssize_t T, int threads=1,
):
    """Return a score for each window of T rows of `series`: readout . h_n."""
    cdef Py_ssize_t I = w_ih.shape[1], H = w_hh.shape[1], windows = series.shape[0] - T + 1
    cdef fastlstm_layer layer
    cdef fastlstm_plan *plan
    cdef float[::1] scores
    cdef int status
    if not (w_ih.shape[0] == w_hh.shape[0] == b.shape[0] == 4 * H and series.shape[1] == I
            and readout.shape[0] == H and 1 <= T <= series.shape[0] and H >= 1 and I >= 1):
        raise ValueError("window_scores: the shapes of the arrays do not fit")
    scores = np.empty(windows, np.float32)
    memset(&layer, 0, sizeof(layer))
    layer.size = sizeof(layer)
    layer.cell = FASTLSTM_LSTM
    layer.input_size = I
    layer.hidden_size = H
    layer.w_ih = &w_ih[0, 0]
    layer.w_hh = &w_hh[0, 0]
    layer.b = &b[0]
    with nogil:
        status = fastlstm_f32.create(&plan, &layer)
        if status == FASTLSTM_OK:
            score_all(
                &scores[0], plan, &series[0, 0], &readout[0], T, I, H, windows, threads)
            fastlstm_f32.destroy(plan)
    if status == FASTLSTM_NO_MEMORY:
        raise MemoryError
    if status != FASTLSTM_OK:
        raise ValueError(fastlstm_f32.message(status).decode())
    return np.asarray(scores)
