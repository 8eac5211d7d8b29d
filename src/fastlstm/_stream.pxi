# One time step after the other, for real time: `Stream.step` allocates nothing but a Python array
# where no `out` is given, takes no lock, and does what the time loops do, to the bit: each layer is
# a forward call that never ends, of which `step` takes the next step.

import numpy as np

from fastlstm._arguments import check_array, readable

cdef object DTYPE = np.dtype(np.float64 if sizeof(real) == sizeof(double) else np.float32)
cdef object empty = np.empty


cdef class Stream:
    """Runs recurrent layers step by step, with a state of its own.

    Made by the method ``stream`` of a layer. The weights are those of that moment, or of the last
    ``reset``. One thread at a time may use a stream; any number of streams may share a layer.
    """

    cdef object layer
    cdef list kept              # what the jobs point to
    cdef Buffer jobs_buffer
    cdef Forward *jobs          # one per layer of the stack
    cdef ptrdiff_t B, I, R, L
    cdef ptrdiff_t s            # the number of steps taken
    cdef bint has_c

    def __init__(self, layer, ptrdiff_t batch_size):
        self.layer = layer
        self.B = batch_size
        self.I = layer.input_size
        self.L = layer.num_layers
        self.reset()

    def reset(self):
        """Set the state to zero and take the weights as they are now."""
        cdef Schedule schedule = Schedule(PTRDIFF_MAX // (self.B + 1), self.B, None, False)
        cdef Buffer jobs_buffer = Buffer(self.L * sizeof(Forward))
        cdef Forward *jobs = <Forward *>jobs_buffer.take(self.L * sizeof(Forward))
        cdef Weights weights
        cdef Masks masks
        cdef Forward *job
        cdef list kept = []
        cdef ptrdiff_t l
        for l in range(self.L):
            job = &jobs[l]
            weights = self.layer._pack(l, 0, False)
            begin_forward(job, &weights.packed, &schedule.steps, False)
            expected = self.layer._expected_zoneout()
            if expected != (None, None):
                masks = Masks(schedule, expected[0], expected[1], None, weights)
                set_masks(job, masks)
                kept.append(masks)
            job.fused = True
            kept += [weights, take_forward_workspace(job, 1)]
            job.x = Rows(NULL, 0, job.size.I if l == 0 else job.size.Ip, job.size.I, False)
        self.kept = kept
        self.jobs_buffer = jobs_buffer
        self.jobs = jobs
        self.R = job.size.R
        self.s = 0
        self.has_c = job.kind == LSTM or job.kind == LSTM_VARIANT

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
        cdef Share share
        cdef Forward *job
        cdef real *h = <real *>x
        cdef ptrdiff_t l, b, stride = 0
        for l in range(self.L):
            job = &self.jobs[l]
            share = Share(0, 1, 0, job.size.P)
            job.x.data = h
            forward_step_of_share(job, &share, self.s, NULL, 0)
            h = hidden(job, self.s, &stride)
        self.s += 1
        for b in range(self.B):
            memcpy(y + b * self.R, h + b * stride, self.R * sizeof(real))

    @property
    def state(self):
        """A copy of the state, in the shape that the layer's call takes and gives; may be set."""
        cdef ptrdiff_t l, b, stride, H = self.jobs[0].size.H
        h = empty((self.L, self.B, self.R), DTYPE)
        c = empty((self.L, self.B, H), DTYPE)
        cdef real[:, :, ::1] h_out = h, c_out = c
        cdef Forward *job
        cdef const real *values
        for l in range(self.L):
            job = &self.jobs[l]
            values = hidden(job, self.s - 1, &stride)
            for b in range(self.B):
                memcpy(&h_out[l, b, 0], values + b * stride, self.R * sizeof(real))
                if self.has_c:
                    memcpy(&c_out[l, b, 0], job.c + b * job.size.Hp, H * sizeof(real))
        return (h, c) if self.has_c else h

    @state.setter
    def state(self, value):
        h, c = self.layer._check_state("state", value, self.B)
        cdef ptrdiff_t l, stride
        cdef Forward *job
        cdef real *values
        for l in range(self.L):
            job = &self.jobs[l]
            values = hidden(job, self.s - 1, &stride)
            load_state(values, stride, None if h is None else readable(h[l]), &job.steps)
            if self.has_c:
                load_state(
                    job.c, job.size.Hp, None if c is None else readable(c[l]), &job.steps)

    def __repr__(self):
        return f"<Stream of {self.layer!r}, batch_size={self.B}>"
