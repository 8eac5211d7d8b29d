# One time step after the other, for real time: `Stream.step` allocates nothing but a Python array
# where no `out` is given, takes no lock, and does what the time loops do, to the bit.

import numpy as np

from fastlstm._arguments import check_array, readable

cdef object DTYPE = np.dtype(np.float64 if sizeof(real) == sizeof(double) else np.float32)
cdef object empty = np.empty


cdef struct StreamLayer:
    ptrdiff_t I, H, P, Hp
    const real *w_ih
    const real *w_hh
    const real *b
    real *h                     # (2, B, Hp): the state and where the next one goes
    real *c


cdef class Stream:
    """Runs the layers of an LSTM step by step, with a state of its own.

    Made by ``LSTM.stream``. The weights are those of that moment, or of the last ``reset``. One
    thread at a time may use a stream; any number of streams may share an LSTM.
    """

    cdef object lstm
    cdef list weights
    cdef Buffer buffer
    cdef const kernel_table *kernels
    cdef StreamLayer *layers
    cdef real *scratch
    cdef ptrdiff_t B, I, H, L
    cdef bint odd               # which half of h is the state

    def __init__(self, lstm, ptrdiff_t batch_size):
        self.lstm = lstm
        self.B = batch_size
        self.I = lstm.input_size
        self.H = lstm.hidden_size
        self.L = lstm.num_layers
        self.reset()

    def reset(self):
        """Set the state to zero and take the weights as they are now."""
        cdef LSTMWeights w = self.lstm._pack(0, 0, False)
        cdef size_t size = padded(self.L * sizeof(StreamLayer))
        cdef ptrdiff_t Hp = w.Hp, l
        cdef StreamLayer *layer
        size += padded(w.kernels.tile_rows * 4 * w.kernels.lanes * sizeof(real))
        size += self.L * (padded(2 * self.B * Hp * sizeof(real))
                          + padded(self.B * Hp * sizeof(real)))
        self.buffer = Buffer(size)
        self.layers = <StreamLayer *>self.buffer.take(self.L * sizeof(StreamLayer))
        self.scratch = <real *>self.buffer.take(
            w.kernels.tile_rows * 4 * w.kernels.lanes * sizeof(real))
        self.weights = []
        self.kernels = w.kernels
        self.odd = False
        for l in range(self.L):
            w = self.lstm._pack(l, 0, False)
            self.weights.append(w)
            layer = &self.layers[l]
            layer.I = w.I
            layer.H = w.H
            layer.P = w.P
            layer.Hp = Hp
            layer.w_ih = w.w_ih
            layer.w_hh = w.w_hh
            layer.b = w.b
            layer.h = <real *>self.buffer.take(2 * self.B * Hp * sizeof(real))
            layer.c = <real *>self.buffer.take(self.B * Hp * sizeof(real))
            memset(layer.h, 0, 2 * self.B * Hp * sizeof(real))
            memset(layer.c, 0, self.B * Hp * sizeof(real))

    def step(self, x_t, out=None):
        """Take one time step.

        Parameters
        ----------
        x_t : (B, I) array
            Input in the dtype of the layers.
        out : (B, H) contiguous array, optional
            Where to write the output; a new array by default.

        Returns
        -------
        (B, H) array
            The last layer's output; `out` if it was given.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit; the message names it.
        """
        cdef const real[:, ::1] x
        cdef real[:, ::1] y
        cdef real *h
        try:
            x = x_t
        except (BufferError, TypeError, ValueError):
            x = np.ascontiguousarray(check_array("x_t", x_t, (self.B, self.I), DTYPE))
        if x.shape[0] != self.B or x.shape[1] != self.I:
            raise ValueError(f"x_t: expected {(self.B, self.I)}, got {(x.shape[0], x.shape[1])}")
        if out is None:
            out = empty((self.B, self.H), DTYPE)
        try:
            y = out
        except (BufferError, TypeError, ValueError):
            check_array("out", out, (self.B, self.H), DTYPE)
            raise ValueError("out: expected a contiguous, writable array") from None
        if y.shape[0] != self.B or y.shape[1] != self.H:
            raise ValueError(f"out: expected {(self.B, self.H)}, got {(y.shape[0], y.shape[1])}")
        with nogil:
            h = self.advance(&x[0, 0])
            self.copy_out(&y[0, 0], h)
        return out

    cdef real *advance(self, const real *x) noexcept nogil:
        """Take one step from x (B, I); returns h (B, Hp) of the last layer."""
        cdef ptrdiff_t l, half
        cdef StreamLayer *layer
        cdef forward_step todo
        todo.rows = self.B
        todo.first = 0
        todo.descending = self.odd
        todo.init_stride = 0
        todo.gates = NULL
        todo.z = self.scratch
        todo.h = <real *>x
        todo.h_stride = self.I
        for l in range(self.L):
            layer = &self.layers[l]
            half = self.B * layer.Hp
            todo.x = todo.h
            todo.x_stride = todo.h_stride
            todo.I = layer.I
            todo.H = layer.H
            todo.last = layer.P
            todo.init = layer.b
            todo.w_ih = layer.w_ih
            todo.w_hh = layer.w_hh
            todo.h = layer.h if self.odd else layer.h + half
            todo.h_prev = layer.h + half if self.odd else layer.h
            todo.h_stride = todo.h_prev_stride = todo.c_stride = layer.Hp
            todo.c = layer.c
            todo.c_prev = layer.c
            self.kernels.lstm_forward_step(&todo)
        self.odd = not self.odd
        return todo.h

    cdef void copy_out(self, real *y, const real *h) noexcept nogil:
        cdef ptrdiff_t b
        for b in range(self.B):
            memcpy(y + b * self.H, h + b * self.layers[self.L - 1].Hp, self.H * sizeof(real))

    @property
    def state(self):
        """The pair h, c of (num_layers, B, H) arrays, as copies; may be set."""
        h = empty((self.L, self.B, self.H), DTYPE)
        c = empty((self.L, self.B, self.H), DTYPE)
        cdef real[:, :, ::1] h_out = h, c_out = c
        cdef StreamLayer *layer
        cdef ptrdiff_t l, b
        for l in range(self.L):
            layer = &self.layers[l]
            for b in range(self.B):
                memcpy(&h_out[l, b, 0], layer.h + (self.odd * self.B + b) * layer.Hp,
                       self.H * sizeof(real))
                memcpy(&c_out[l, b, 0], layer.c + b * layer.Hp, self.H * sizeof(real))
        return h, c

    @state.setter
    def state(self, value):
        h, c = self.lstm._check_state("state", value, self.B)
        cdef Steps steps = Steps(0, self.B, False, NULL, NULL, NULL)
        cdef StreamLayer *layer
        cdef ptrdiff_t l
        for l in range(self.L):
            layer = &self.layers[l]
            load_state(layer.h + self.odd * self.B * layer.Hp, layer.Hp,
                       None if h is None else readable(h[l]), &steps)
            load_state(layer.c, layer.Hp, None if c is None else readable(c[l]), &steps)

    def __repr__(self):
        return f"<Stream of {self.lstm!r}, batch_size={self.B}>"
