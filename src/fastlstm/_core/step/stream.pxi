# Layers step by step, for real time: `Stream.step` allocates nothing but a Python array where no
# `out` is given, takes no lock, and does what the time loops do, to the bit.

cdef object empty = np.empty
cdef object ndarray = np.ndarray  # what else has memory may have a mask, too: Python looks at it


cdef class Stream:
    """Runs packed weights, one after the other, step by step, with a state of its own.

    What a layer adds (`fastlstm._layers.stream`) is where the weights come from and `readable`,
    which makes an array of what `step` cannot read in place, or raises.
    """

    cdef list kept              # what the states point to
    cdef Buffer buffer
    cdef State *states          # one per layer of the stack
    cdef ptrdiff_t B, I, R, L
    cdef bint has_c

    def restart(self, list weights not None, tuple zoneout not None, ptrdiff_t B):
        """Set the state of B rows to zero and take the weights, one for each layer of a stack.

        `zoneout` is how much of h and of c stays, numbers or None.
        """
        cdef Schedule schedule = new_schedule(1, B)
        cdef list masks = [Masks(schedule, each, *zoneout, None) for each in weights]
        cdef ptrdiff_t L = len(weights), l
        cdef size_t states_size = size_times(L, sizeof(State))
        cdef Memory memory = Memory(NULL, size_padded(states_size))
        cdef State state
        cdef Buffer buffer
        cdef Weights below = None, each_weights
        if L == 0:
            raise ValueError("weights: expected some, got none")
        for each_weights in weights:
            if below is not None and each_weights.packed.size.I != below.packed.size.R:
                raise ValueError("weights: expected layers that read the ones below")
            below = each_weights
        for l in range(L):
            self.lay_out(&state, l, weights[l], masks[l], B, &memory)
        buffer = Buffer(memory.used)
        memory = memory_of(buffer)
        self.states = <State *>carve_bytes(&memory, states_size)
        for l in range(L):
            self.lay_out(&self.states[l], l, weights[l], masks[l], B, &memory)
        self.kept = [weights, masks]
        self.buffer = buffer
        self.B = B
        self.L = L
        self.I = self.states[0].job.size.I
        self.R = self.states[0].job.size.R
        self.has_c = has_c(self.states[0].job.kind)

    cdef void lay_out(
        self, State *state, ptrdiff_t l, Weights weights, Masks masks, ptrdiff_t B,
        Memory *memory,
    ) noexcept:
        """The state of layer l, which reads x or the h of the layer below."""
        cdef const Sizes *n = &weights.packed.size
        lay_out_state(state, &weights.packed, masks.zoneout_h, masks.zoneout_c, B,
                      n.I if l == 0 else n.Ip, memory)

    def readable(self, x_t):
        """Return `x_t` as a contiguous array of the stream's dtype, or raise; see the class."""
        raise TypeError("x_t: expected a contiguous array of the stream's dtype")

    def writable(self, out):
        """Raise what is wrong with `out`."""
        raise TypeError("out: expected a contiguous, writable array of the stream's dtype")

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
        if self.states == NULL:
            raise ValueError("step: expected a stream that has been started")
        try:
            x = x_t if type(x_t) is ndarray else self.readable(x_t)
        except (BufferError, TypeError, ValueError):
            x = self.readable(x_t)
        if x.shape[0] != self.B or x.shape[1] != self.I:
            raise ValueError(f"x_t: expected {(self.B, self.I)}, got {(x.shape[0], x.shape[1])}")
        if <size_t>&x[0, 0] % sizeof(real):
            x = self.readable(x_t)
        if out is None:
            out = empty((self.B, self.R), DTYPE)
        elif type(out) is not ndarray:
            self.writable(out)
        try:
            y = out
        except (BufferError, TypeError, ValueError):
            self.writable(out)
            raise ValueError("out: expected a contiguous, writable array") from None
        if y.shape[0] != self.B or y.shape[1] != self.R:
            raise ValueError(f"out: expected {(self.B, self.R)}, got {(y.shape[0], y.shape[1])}")
        if <size_t>&y[0, 0] % sizeof(real):
            raise ValueError("out: expected an aligned array")
        with nogil:
            self.advance(&y[0, 0], &x[0, 0])
        return out

    cdef void advance(self, real *y, const real *x) noexcept nogil:
        """Take one step from x (B, I) to y (B, R)."""
        cdef ptrdiff_t l
        for l in range(self.L):
            x = advance(&self.states[l], x)
        copy_array(y, self.R, x, self.states[0].job.size.Rp, self.B, self.R)

    def copy_state(self):
        """Copies of h (L, B, R) and c (L, B, H), which is None where the cell has none."""
        cdef const Sizes *n = &self.states[0].job.size
        cdef ptrdiff_t l
        h = empty((self.L, self.B, n.R), DTYPE)
        c = empty((self.L, self.B, n.H), DTYPE)
        cdef real[:, :, ::1] h_out = h, c_out = c
        for l in range(self.L):
            copy_array(&h_out[l, 0, 0], n.R, current_h(&self.states[l]), n.Rp, self.B, n.R)
            if self.has_c:
                copy_array(&c_out[l, 0, 0], n.H, self.states[l].job.c, n.Hp, self.B, n.H)
        return h, c if self.has_c else None

    def zero_rows(self, const unsigned char[::1] resets not None):
        """Set h and c of all layers to zero in the rows whose flag is not 0."""
        cdef ptrdiff_t l
        if resets.shape[0] != self.B:
            raise ValueError(f"resets: expected {(self.B,)}, got {(resets.shape[0],)}")
        for l in range(self.L):
            reset_rows(&self.states[l], &resets[0])

    def set_state(self, list h not None, list c not None):
        """Take h (B, R) and c (B, H) of each layer, or None for zeros."""
        cdef const Sizes *n = &self.states[0].job.size
        cdef StateView h_l, c_l
        cdef Forward *job
        cdef ptrdiff_t l
        if len(h) != self.L or len(c) != self.L:
            raise ValueError(f"state: expected {self.L} layers, got {len(h)} and {len(c)}")
        for l in range(self.L):
            job = &self.states[l].job
            h_l = state_view("h", h[l], self.B, n.R)
            c_l = state_view("c", c[l], self.B, n.H, self.has_c)
            load_state(current_h(&self.states[l]), n.Rp, &h_l, &job.steps)
            if self.has_c:
                load_state(job.c, n.Hp, &c_l, &job.steps)
