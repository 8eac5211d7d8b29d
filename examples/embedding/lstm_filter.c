/* A C extension: an LSTM over a signal, one sample after the other, without the GIL.
 *
 *     filter(w_ih, w_hh, b, x, y)    float32: x (T, I) in, y (T, H) out
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fastlstm.h>
#include <stdlib.h>

/* What a plug-in does: all that may wait happens before the first sample, nothing after it. */
static int run(const fastlstm_layer *layer, Py_ssize_t T, const float *x, float *y)
{
    fastlstm_plan *plan;
    fastlstm_state *state = NULL;
    int status = fastlstm_f32->create(&plan, layer);
    if (status != FASTLSTM_OK)
        return status;
    state = aligned_alloc(FASTLSTM_ALIGNMENT, fastlstm_f32->state_size(plan, 1));
    status = state ? fastlstm_f32->init_state(plan, state, 1) : FASTLSTM_NO_MEMORY;
    if (status == FASTLSTM_OK)
        for (Py_ssize_t t = 0; t < T; t++)
            fastlstm_f32->step(state, x + t * layer->input_size, y + t * layer->hidden_size);
    free(state);
    fastlstm_f32->destroy(plan);
    return status;
}

static PyObject *filter(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer w_ih, w_hh, b, x, y;
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*w*", &w_ih, &w_hh, &b, &x, &y))
        return NULL;
    const Py_ssize_t real = sizeof(float), H = b.len / (4 * real);
    const Py_ssize_t I = H ? w_ih.len / (4 * H * real) : 0, T = H ? y.len / (H * real) : 0;
    const fastlstm_layer layer = {.size = sizeof layer, .cell = FASTLSTM_LSTM, .input_size = I,
                                  .hidden_size = H, .w_ih = w_ih.buf, .w_hh = w_hh.buf, .b = b.buf};
    const int fits = H && w_ih.len == 4 * H * I * real && w_hh.len == 4 * H * H * real &&
                     b.len == 4 * H * real && x.len == T * I * real && y.len == T * H * real;
    int status = FASTLSTM_OK;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        status = run(&layer, T, x.buf, y.buf);
        Py_END_ALLOW_THREADS
    }
    Py_buffer *const all[] = {&w_ih, &w_hh, &b, &x, &y};
    for (int i = 0; i < 5; i++)
        PyBuffer_Release(all[i]);
    if (!fits)
        return PyErr_Format(PyExc_ValueError, "filter: the sizes of the arrays do not fit");
    if (status != FASTLSTM_OK)
        return PyErr_Format(PyExc_RuntimeError, "%s", fastlstm_f32->message(status));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"filter", filter, METH_VARARGS, "filter(w_ih, w_hh, b, x, y): run an LSTM over a signal."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "lstm_filter", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_lstm_filter(void)
{
    if (fastlstm_import() < 0)
        return NULL;
    return PyModule_Create(&module);
}
