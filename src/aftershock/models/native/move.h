/* A cache's rows moved: of each store, [rows][heads][room] positions of some bytes, only what is held. */
#ifndef AFTERSHOCK_MOVE_H
#define AFTERSHOCK_MOVE_H

#include <string.h>

typedef struct {
    long stores;
    char *const *data;         /* [stores], and so the next two */
    const long *heads, *bytes; /* `bytes` of one position of one head */
    long room;
    const long *source, *target; /* [rows]; no target is a source */
    long rows, length;
} Moves;

/* Copy the first `length` positions of rows `source` to rows `target`. */
static inline void copy_rows(const Moves *m) {
    for (long s = 0; s < m->stores; s++)
        for (long i = 0; i < m->rows * m->heads[s]; i++) {
            const long row = i / m->heads[s], head = i % m->heads[s], size = m->room * m->bytes[s];
            memcpy(m->data[s] + (m->target[row] * m->heads[s] + head) * size,
                   m->data[s] + (m->source[row] * m->heads[s] + head) * size, m->length * m->bytes[s]);
        }
}

/* Copy positions `first` to `last` of row `source` to row `target`. */
static inline void copy_part(const Moves *m, long source, long target, long first, long last) {
    for (long s = 0; s < m->stores; s++)
        for (long head = 0; head < m->heads[s]; head++) {
            const long from = (source * m->heads[s] + head) * m->room, to = (target * m->heads[s] + head) * m->room;
            memcpy(m->data[s] + (to + first) * m->bytes[s], m->data[s] + (from + first) * m->bytes[s],
                   (last - first) * m->bytes[s]);
        }
}

/* Lay the first `rows` out for `room` positions in place of `length`; the new ones are 0. */
static inline void widen(const Moves *m) {
    for (long s = 0; s < m->stores; s++) {
        const long held = m->length * m->bytes[s], size = m->room * m->bytes[s];
        for (long i = m->rows * m->heads[s] - 1; i >= 0; i--) { /* from the end, as all move back */
            memmove(m->data[s] + i * size, m->data[s] + i * held, held);
            memset(m->data[s] + i * size + held, 0, size - held);
        }
    }
}

#endif
