# Zoneout and dropout of one call, in the order of the steps.


cdef class Masks:
    """Masks of one call in the order of the steps: zoneout of every row of every step, dropout of
    every row. A zoneout that is one number is one row, which all share.
    """

    cdef list buffers
    cdef const real *zoneout_h  # (all rows, Rp), or NULL
    cdef ptrdiff_t zoneout_h_stride
    cdef const real *zoneout_c  # (all rows, Hp), or NULL
    cdef ptrdiff_t zoneout_c_stride
    cdef const real *dropout    # (B, Rp), or NULL

    def __cinit__(
        self, Schedule schedule, Weights weights, zoneout_h, zoneout_c, dropout,
    ):
        cdef const Steps *steps = &schedule.steps
        cdef const Sizes *n = &weights.packed.size
        cdef StateView rows
        self.buffers = []
        if zoneout_h is not None:
            self.zoneout_h = self.gather(
                "zoneout_h", zoneout_h, schedule, n.R, n.Rp, &self.zoneout_h_stride)
        if zoneout_c is not None:
            if not has_c(weights.packed.kind):
                raise ValueError("zoneout_c: expected None, the cell has no cell state")
            self.zoneout_c = self.gather(
                "zoneout_c", zoneout_c, schedule, n.H, n.Hp, &self.zoneout_c_stride)
        if dropout is not None:
            rows = state_view("dropout_h", dropout, steps.B, n.R)
            self.dropout = self.new_zeros(steps.B, n.Rp)
            load_state(<real *>self.dropout, n.Rp, &rows, steps)

    cdef real *new_zeros(self, ptrdiff_t rows, ptrdiff_t width) except NULL:
        cdef Memory memory = Memory(NULL, 0)
        cdef Buffer buffer
        carve(&memory, rows, width)
        buffer = Buffer(memory.used)
        self.buffers.append(buffer)
        memory = memory_of(buffer)
        return carve_zeros(&memory, rows, width)

    cdef const real *gather(
        self, str name, mask, Schedule schedule, ptrdiff_t F, ptrdiff_t padded_F,
        ptrdiff_t *stride,
    ) except NULL:
        cdef const Steps *steps = &schedule.steps
        cdef SequenceView view
        cdef real *gathered
        cdef ptrdiff_t unit, rows
        if isinstance(mask, float):
            stride[0] = 0
            gathered = self.new_zeros(1, padded_F)
            for unit in range(F):
                gathered[unit] = mask
            return gathered
        view = sequence_view(name, mask, schedule.T, steps.B, F)
        stride[0] = padded_F
        rows = first_row(steps, steps.count)
        gathered = self.new_zeros(rows, padded_F)
        if rows:
            copy_rows(gathered, padded_F, &view, steps, 0, 0, rows, False)
        return gathered
