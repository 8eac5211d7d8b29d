# Layers step by step, for real time: `Stream.step` allocates nothing but a Python array where no
# `out` is given, takes no lock, and does what the time loops do, to the bit.

import numpy as np

from fastlstm._args.arrays import check_array, readable

cdef object DTYPE = np.dtype(np.float64 if sizeof(real) == sizeof(double) else np.float32)
cdef object empty = np.empty


cdef class Stream:
    """Runs recurrent layers step by step, with a state of its own.

    Made by the method ``stream`` of a layer. The weights are those of that moment, or of the last
    ``reset``. One thread at a time may use a stream; any number of streams may share a layer.
    """

    cdef object layer
    cdef list kept              # what the states point to
    cdef Buffer buffer
    cdef State *states          # one per layer of the stack
    cdef ptrdiff_t B, I, R, L
    cdef bint has_c

    def __init__(self, layer, ptrdiff_t batch_size):
        self.layer = layer
        self.B = batch_size
        self.I = layer.input_size
        self.L = layer.num_layers
        self.reset()

    def reset(self):
        """Set the state to zero and take the weights as they are now."""
        cdef Schedule schedule = Schedule(1, self.B, None, False)
        cdef list weights = [self.layer._pack(l, 0, False) for l in range(self.L)]
        zoneout_h, zoneout_c = self.layer._expected_zoneout()
        cdef list masks = [
            Masks(schedule, zoneout_h, zoneout_c, None, each) for each in weights]
        cdef Memory memory = Memory(NULL, padded(self.L * sizeof(State)))
        cdef State state
        cdef Buffer buffer
        for l in range(self.L):
            self.lay_out(&state, l, weights[l], masks[l], &memory)
        buffer = Buffer(memory.taken)
        self.states = <State *>buffer.take(memory.taken)
        memory = Memory(<char *>self.states, padded(self.L * sizeof(State)))
        for l in range(self.L):
            self.lay_out(&self.states[l], l, weights[l], masks[l], &memory)
        self.kept = [weights, masks]
        self.buffer = buffer
        self.R = self.states[0].job.size.R
        self.has_c = has_c(self.states[0].job.kind)

    cdef void lay_out(
        self, State *state, ptrdiff_t l, Weights weights, Masks masks, Memory *memory,
    ) noexcept:
        """The state of layer l, which reads x or the h of the layer below."""
        cdef const Sizes *n = &weights.packed.size
        lay_out_state(state, &weights.packed, masks.zoneout_h, masks.zoneout_c, self.B,
                      n.I if l == 0 else n.Ip, memory)

    def step(self, x_t, out=None):
        """Take one time step.

        Parameters
        ----------
        x_t : (B, I) array
            Input in the dtype of the layers.
        out : (B, R) contiguous array, optional
            Where to write the output; a new array by default.

        Returns
        -------
        (B, R) array
            The last layer's output; `out` if it was given.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit; the message names it.
        """
        cdef const real[:, ::1] x
        cdef real[:, ::1] y
        try:
            x = x_t
        except (BufferError, TypeError, ValueError):
            x = np.ascontiguousarray(check_array("x_t", x_t, (self.B, self.I), DTYPE))
        if x.shape[0] != self.B or x.shape[1] != self.I:
            raise ValueError(f"x_t: expected {(self.B, self.I)}, got {(x.shape[0], x.shape[1])}")
        if out is None:
            out = empty((self.B, self.R), DTYPE)
        try:
            y = out
        except (BufferError, TypeError, ValueError):
            check_array("out", out, (self.B, self.R), DTYPE)
            raise ValueError("out: expected a contiguous, writable array") from None
        if y.shape[0] != self.B or y.shape[1] != self.R:
            raise ValueError(f"out: expected {(self.B, self.R)}, got {(y.shape[0], y.shape[1])}")
        with nogil:
            self.advance(&y[0, 0], &x[0, 0])
        return out

    cdef void advance(self, real *y, const real *x) noexcept nogil:
        """Take one step from x (B, I) to y (B, R)."""
        cdef ptrdiff_t l
        for l in range(self.L):
            x = advance(&self.states[l], x)
        copy_array(y, self.R, x, self.states[0].job.size.Rp, self.B, self.R)

    @property
    def state(self):
        """A copy of the state, in the shape that the layer's call takes and gives; may be set."""
        cdef const Sizes *n = &self.states[0].job.size
        cdef ptrdiff_t l
        h = empty((self.L, self.B, n.R), DTYPE)
        c = empty((self.L, self.B, n.H), DTYPE)
        cdef real[:, :, ::1] h_out = h, c_out = c
        for l in range(self.L):
            copy_array(&h_out[l, 0, 0], n.R, current_h(&self.states[l]), n.Rp, self.B, n.R)
            if self.has_c:
                copy_array(&c_out[l, 0, 0], n.H, self.states[l].job.c, n.Hp, self.B, n.H)
        return (h, c) if self.has_c else h

    @state.setter
    def state(self, value):
        h, c = self.layer._check_state("state", value, self.B)
        cdef const Sizes *n = &self.states[0].job.size
        cdef Forward *job
        cdef ptrdiff_t l
        for l in range(self.L):
            job = &self.states[l].job
            load_state(current_h(&self.states[l]), n.Rp,
                       None if h is None else readable(h[l]), &job.steps)
            if self.has_c:
                load_state(
                    job.c, n.Hp, None if c is None else readable(c[l]), &job.steps)

    def __repr__(self):
        return f"<Stream of {self.layer!r}, batch_size={self.B}>"
