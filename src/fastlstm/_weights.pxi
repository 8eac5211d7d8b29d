# Weights as the kernels want them.


def fingerprint(const real[::1] params):
    """Bytes that are equal for equal parameters, and otherwise different (see fingerprint.h)."""
    cdef real_bits out[8 * MOST_LANES]
    kernels().fingerprint(out, &params[0], params.shape[0])
    return PyBytes_FromStringAndSize(<char *>out, kernels().fingerprint_reals * sizeof(real_bits))


cdef class LSTMWeights:
    """Packed weights of one layer and direction. They keep no reference to the arrays given."""

    cdef const kernel_table *kernels
    cdef readonly ptrdiff_t I
    cdef readonly ptrdiff_t H
    cdef ptrdiff_t P, Hp, Ip    # see kernels.h
    cdef Buffer forward
    cdef Buffer backward
    cdef real *w_ih             # pack_gates
    cdef real *w_hh             # pack_gates
    cdef real *b                # (P, 4, LANES)
    cdef real *w_ih_columns     # pack_columns
    cdef real *w_hh_columns     # pack_columns

    def __cinit__(self, const real[:, :] w_ih, const real[:, :] w_hh, const real[:] b):
        cdef ptrdiff_t I = w_ih.shape[1], H = w_hh.shape[1], Z
        self.kernels = kernels()
        self.I = I
        self.H = H
        self.P = (H + self.kernels.lanes - 1) // self.kernels.lanes
        self.Hp = self.P * self.kernels.lanes
        self.Ip = (I + self.kernels.lanes - 1) // self.kernels.lanes * self.kernels.lanes
        Z = 4 * self.Hp
        self.forward = Buffer(
            padded(Z * I * sizeof(real)) + padded(Z * H * sizeof(real)) + padded(Z * sizeof(real)))
        self.w_ih = <real *>self.forward.take(Z * I * sizeof(real))
        self.w_hh = <real *>self.forward.take(Z * H * sizeof(real))
        self.b = <real *>self.forward.take(Z * sizeof(real))
        if I:
            self.kernels.pack_gates(
                self.w_ih, &w_ih[0, 0], w_ih.strides[0] // <ptrdiff_t>sizeof(real),
                w_ih.strides[1] // <ptrdiff_t>sizeof(real), H, I)
        self.kernels.pack_gates(
            self.w_hh, &w_hh[0, 0], w_hh.strides[0] // <ptrdiff_t>sizeof(real),
            w_hh.strides[1] // <ptrdiff_t>sizeof(real), H, H)
        if b is None:
            memset(self.b, 0, Z * sizeof(real))
        else:
            self.kernels.pack_gates(
                self.b, &b[0], b.strides[0] // <ptrdiff_t>sizeof(real), 0, H, 1)

    def prepare_backward(self, const real[:, :] w_ih, const real[:, :] w_hh):
        """Pack the same weights for lstm_backward too."""
        cdef ptrdiff_t K = 4 * self.H, itemsize = sizeof(real)
        if self.backward is not None:
            return
        cdef Buffer buffer = Buffer(
            padded(K * self.Ip * sizeof(real)) + padded(K * self.Hp * sizeof(real)))
        self.w_ih_columns = <real *>buffer.take(K * self.Ip * sizeof(real))
        self.w_hh_columns = <real *>buffer.take(K * self.Hp * sizeof(real))
        self.kernels.pack_columns(
            self.w_ih_columns, &w_ih[0, 0],
            w_ih.strides[0] // itemsize, w_ih.strides[1] // itemsize, K, self.I)
        self.kernels.pack_columns(
            self.w_hh_columns, &w_hh[0, 0],
            w_hh.strides[0] // itemsize, w_hh.strides[1] // itemsize, K, self.H)
        self.backward = buffer
