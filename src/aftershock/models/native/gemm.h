/* Vectors, the matrix product and the small functions of a row: what every part of a native step is made of.
 *
 * A row's result never depends on its neighbours: each output element is summed over k in one fixed order, whatever
 * tile it falls into. Vectors are the compiler's own (GCC and Clang), as wide as the machine's registers.
 */
#ifndef AFTERSHOCK_GEMM_H
#define AFTERSHOCK_GEMM_H

#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#if defined(__AVX512F__) || defined(__aarch64__) /* 32 registers: */
#define VECS 3               /* vectors in a panel's line, and */
#define TILE 8               /* rows of one tile: 24 sums, 3 weights and 1 input */
#else                        /* 16 */
#define VECS 2
#define TILE 6
#endif
#define PANEL (VECS * WIDTH) /* outputs that lie together in a packed matrix */

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef int veci __attribute__((vector_size(4 * WIDTH)));

#if WIDTH == 16
#define LANES ((veci){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
#elif WIDTH == 8
#define LANES ((veci){0, 1, 2, 3, 4, 5, 6, 7})
#else
#define LANES ((veci){0, 1, 2, 3})
#endif

#define INLINE static inline __attribute__((always_inline))
/* Compiled by itself, and so to the same code in each library: whoever calls it gets the same bits. */
#ifdef __clang__
#define PINNED static __attribute__((noinline, unused))
#else
#define PINNED static __attribute__((noipa, unused))
#endif
#define EACH _Pragma("GCC unroll 16") for

static inline long least(long a, long b) { return a < b ? a : b; }

static inline long whole(long n, long of) { return (n + of - 1) / of * of; }

INLINE vec load(const float *x) {
    vec v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void store(float *x, vec v) { memcpy(x, &v, sizeof v); }

INLINE vec same(float x) { return x - (vec){0}; } /* less 0, which the compiler drops: -0 + 0 would be 0 */

/* The first n of x, and `fill` behind them. */
INLINE vec load_part(const float *x, long n, float fill) {
    vec v = same(fill);
    for (long i = 0; i < n; i++) v[i] = x[i];
    return v;
}

INLINE void store_part(float *x, long n, vec v) {
    for (long i = 0; i < n; i++) x[i] = v[i];
}

INLINE vec choose(veci mask, vec yes, vec no) { return (vec)((mask & (veci)yes) | (~mask & (veci)no)); }

/* v's lanes i ^ by in place of i. */
INLINE vec crossed(vec v, const int by) {
#ifdef __clang__
    vec turned;
    for (int i = 0; i < WIDTH; i++) turned[i] = v[i ^ by];
    return turned;
#else
    return __builtin_shuffle(v, LANES ^ by);
#endif
}

INLINE float total(vec v) {
    EACH(int by = WIDTH / 2; by > 0; by /= 2) v += crossed(v, by);
    return v[0];
}

INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }

INLINE float largest_lane(vec v) {
    EACH(int by = WIDTH / 2; by > 0; by /= 2) v = larger(crossed(v, by), v);
    return v[0];
}

/* A matrix [outs][ins] in panels of PANEL outputs: data[panel][k][PANEL], the last panel filled up with zeros.
 * A large one is read where it lies instead, row by row: then data is w[outs][ins]. */
typedef struct {
    const float *data;
    long outs, ins;
    const float *bias; /* [outs], or NULL */
    long in_place;     /* whether it isn't packed */
} Packed;

/* How many floats `pack` writes. */
static inline long packed_size(long outs, long ins) { return (outs + PANEL - 1) / PANEL * PANEL * ins; }

/* Lay w [outs][ins], row by row, out in panels. */
static inline void pack(const float *w, long outs, long ins, float *to) {
    for (long first = 0; first < outs; first += PANEL) {
        long held = outs - first < PANEL ? outs - first : PANEL;
        for (long k = 0; k < ins; k++, to += PANEL) {
            for (long o = 0; o < held; o++) to[o] = w[(first + o) * ins + k];
            for (long o = held; o < PANEL; o++) to[o] = 0;
        }
    }
}

/* Memory that a product fetches while it sums, so that it has come when it is wanted: two runs that take turns with
 * each k of a tile, and so many bytes that a run goes on by each time. */
typedef struct {
    const char *at, *other;
    long pace, other_pace;
} Fetch;

INLINE Fetch fetched(Fetch f) {
    __builtin_prefetch(f.at);
    return (Fetch){f.other, f.at + f.pace, f.other_pace, f.pace};
}

/* What is fetched once a tile has summed n terms. */
static inline Fetch after(Fetch f, long n) {
    return (Fetch){f.at + (n + 1) / 2 * f.pace, f.other + n / 2 * f.other_pace, f.pace, f.other_pace};
}

/* y of `rows` rows and of a panel's first `vecs` vectors, constants where it is inlined; the panel's first output is
 * `first`, and it has `held`. */
INLINE void tile(const Packed *w, long first, long held, const float *x, const long rows, const long vecs,
                 long x_stride, float *y, long y_stride, Fetch next) {
    const float *data = w->data + first * w->ins;
    vec sum[TILE][VECS];
    EACH(int v = 0; v < vecs; v++) {
        long left = held - v * WIDTH;
        vec start = {0};
        if (w->bias) start = left >= WIDTH ? load(w->bias + first + v * WIDTH)
                                           : load_part(w->bias + first + v * WIDTH, left, 0);
        EACH(int r = 0; r < rows; r++) sum[r][v] = start;
    }
    _Pragma("GCC unroll 2") for (long k = 0; k < w->ins; k++, data += PANEL) {
        vec weight[VECS];
        next = fetched(next);
        EACH(int v = 0; v < vecs; v++) weight[v] = load(data + v * WIDTH);
        EACH(int r = 0; r < rows; r++) {
            vec in = same(x[r * x_stride + k]);
            EACH(int v = 0; v < vecs; v++) sum[r][v] += in * weight[v];
        }
    }
    EACH(int r = 0; r < rows; r++) {
        EACH(int v = 0; v < vecs; v++) {
            long left = held - v * WIDTH;
            if (left >= WIDTH)
                store(y + r * y_stride + first + v * WIDTH, sum[r][v]);
            else
                store_part(y + r * y_stride + first + v * WIDTH, left, sum[r][v]);
        }
    }
}

#if TILE > 6
#define BEYOND_FIVE(call)   \
    case 6: call(6); break; \
    case 7: call(7); break;
#else
#define BEYOND_FIVE(call)
#endif
#define BY_ROWS(left, call) \
    switch (left) {         \
    case 1: call(1); break; \
    case 2: call(2); break; \
    case 3: call(3); break; \
    case 4: call(4); break; \
    case 5: call(5); break; \
    BEYOND_FIVE(call)       \
    default: call(TILE);    \
    }

#if TILE > 6
#define LINE_TILE 8  /* rows, at most, and */
#else
#define LINE_TILE 4
#endif
#define LINES 8      /* outputs, at most, of a tile of a matrix in place: as many sums again */
#define REGISTERS 16 /* at least */
#define BLOCK 65536  /* floats of weights that stay in a core's cache while all rows pass */
#define FEW 16       /* rows: up to here all pass one tile's outputs before the next */
#define SHARED ((3 * WIDTH + 31) / 32) /* streams of each of two or more tiles that fetch the same three lines */

/* Keep v in a register. Left to itself GCC reads a value anew for each product it is in, and loads set the pace. */
#ifdef __x86_64__
#define HELD(v) __asm__("" : "+v"(v))
#else
#define HELD(v) (void)0
#endif

/* What a tile fetches into the cache while it sums, so that memory is never idle: `share` bytes from `at` on, `pace`
 * of them with each vector of k. */
typedef struct {
    const char *at;
    long share, pace;
} Ahead;

/* y of `rows` rows and `outs` outputs of a matrix in place, summed by lanes; `next` is fetched as so many streams, 0
 * for none. All three are constants where it is inlined. */
INLINE void line_tile(const Packed *w, long first, const int outs, const float *x, const int rows, long x_stride,
                      float *y, long y_stride, Ahead next, const int streams) {
    const long n = w->ins, whole = n / WIDTH * WIDTH;
    const float *line = w->data + first * n;
    vec sum[LINE_TILE][LINES], in, weight[LINES];
    EACH(int r = 0; r < rows; r++) EACH(int o = 0; o < outs; o++) sum[r][o] = (vec){0};
    for (long k = 0; k < whole; k += WIDTH) {
        EACH(int i = 0; i < streams; i++) __builtin_prefetch(next.at + next.share / streams * i);
        if (streams) next.at += next.pace / streams;
        if (rows * outs == 1) HELD(sum[0][0]); /* or GCC doesn't fuse product and sum, as it does with several */
        EACH(int o = 0; o < outs; o++) {
            weight[o] = load(line + o * n + k);
            if (rows * outs + outs < REGISTERS) HELD(weight[o]);
        }
        EACH(int r = 0; r < rows; r++) {
            in = load(x + r * x_stride + k);
            HELD(in);
            EACH(int o = 0; o < outs; o++) sum[r][o] += in * weight[o];
        }
    }
    if (whole < n) {
        EACH(int o = 0; o < outs; o++) weight[o] = load_part(line + o * n + whole, n - whole, 0);
        EACH(int r = 0; r < rows; r++) {
            in = load_part(x + r * x_stride + whole, n - whole, 0);
            EACH(int o = 0; o < outs; o++) {
                vec product = in * weight[o];
                __asm__("" : "+m"(product)); /* or GCC fuses it with its sum in some tiles, and in others not */
                sum[r][o] += product;
            }
        }
    }
    EACH(int r = 0; r < rows; r++) {
        EACH(int o = 0; o < outs; o++)
            y[r * y_stride + first + o] = total(sum[r][o]) + (w->bias ? w->bias[first + o] : 0);
    }
}

/* `product` of a matrix in place. One row is summed faster than weights arrive, and the processor's own fetching does
 * best with its eight lines; the rows of a single tile need as many streams as it has lines; with more rows one or two
 * do, as tiles share what is next. Not inlined: among other loops it would lack registers. */
static __attribute__((noinline)) void lines(const Packed *w, long first, long last, const float *x, long rows,
                                            long x_stride, float *y, long y_stride) {
    const long n = w->ins, most = rows == 1 ? 8 : rows == 2 ? 6 : rows == 3 ? 4 : 3;
    const long outs = last - first < most ? 1 : most, groups = (rows + LINE_TILE - 1) / LINE_TILE;
    const long block = rows > FEW ? BLOCK / n / outs * outs + outs : outs;
    for (long from = first; from < last; from += block) {
        const long to = from + block < last ? from + block : last;
        Ahead next = {(const char *)(w->data + to * n), 4 * outs * n / groups, 4 * outs * WIDTH / groups};
        for (long r = 0; r < rows; r += LINE_TILE) {
            const float *in = x + r * x_stride;
            float *out = y + r * y_stride;
            const long tall = rows - r < LINE_TILE ? rows - r : LINE_TILE;
            for (long o = from; o < to; o += outs, next.at += next.share) {
                const long at = o + outs < last ? o : last - outs; /* the last tile overlaps the one before */
#define CASE(key, tall, outs, streams)                                            \
    case key:                                                                     \
        line_tile(w, at, outs, in, tall, x_stride, out, y_stride, next, streams); \
        break;
                switch (outs == 1 ? 0 : groups == 1 ? -tall : tall) {
                    CASE(-1, 1, 8, 0)
                    CASE(-2, 2, 6, 6)
                    CASE(-3, 3, 4, 4)
                    CASE(-4, 4, 3, 3)
                    CASE(1, 1, 3, SHARED)
                    CASE(2, 2, 3, SHARED)
                    CASE(3, 3, 3, SHARED)
                    CASE(4, 4, 3, SHARED)
#if LINE_TILE > 4
                    CASE(-5, 5, 3, 3)
                    CASE(-6, 6, 3, 3)
                    CASE(-7, 7, 3, 3)
                    CASE(-8, 8, 3, 3)
                    CASE(5, 5, 3, SHARED)
                    CASE(6, 6, 3, SHARED)
                    CASE(7, 7, 3, SHARED)
                    CASE(8, 8, 3, SHARED)
#endif
                default:
                    for (long one = 0; one < tall; one++)
                        line_tile(w, at, 1, in + one * x_stride, 1, x_stride, out + one * y_stride, y_stride, next, 0);
                }
#undef CASE
            }
        }
    }
}

/* `product` for the outputs from `first`, a multiple of PANEL, to `last`. */
PINNED void product_part(const Packed *w, long first, long last, const float *x, long rows, long x_stride,
                                float *y, long y_stride, Fetch next) {
    if (w->in_place) {
        lines(w, first, last, x, rows, x_stride, y, y_stride);
        return;
    }
    for (; first < last; first += PANEL) {
        const long held = least(PANEL, w->outs - first);
        for (long r = 0; r < rows; r += TILE) {
            const float *in = x + r * x_stride;
            float *to = y + r * y_stride;
#define FULL(n) tile(w, first, held, in, n, VECS, x_stride, to, y_stride, next)
#define LESS(n) tile(w, first, held, in, n, VECS - 1, x_stride, to, y_stride, next)
            if (held > PANEL - WIDTH) BY_ROWS(rows - r, FULL)
            else BY_ROWS(rows - r, LESS)
#undef FULL
#undef LESS
            next = after(next, w->ins);
        }
    }
}

/* The weights after a panel's, while its rows pass: those of a whole small model are more than a core's cache holds. */
static inline Fetch next_panel(const Packed *w, long first, long rows) {
    const char *at = (const char *)(w->data + (first + PANEL) * w->ins);
    const long pace = 8 * PANEL * TILE / (rows < TILE ? TILE : rows);
    return (Fetch){at, at + pace / 2, pace, pace};
}

/* y[r][o] = bias[o] + sum over k of x[r][k] w[o][k]; k ascends where w is packed. */
static inline void product(const Packed *w, const float *x, long rows, long x_stride, float *y, long y_stride) {
    product_part(w, 0, w->outs, x, rows, x_stride, y, y_stride, next_panel(w, 0, rows));
}

/* e^x to a few units in the last place; 0 below -87.3, NaN for NaN. Of x up to `most`, a constant where it is inlined:
 * what is below 89 needs no care for infinity. */
INLINE vec exp_up_to(vec x, const float most) {
    const veci low = x < -87.3f;
    if (most > 89) x = choose(x > 89.0f, same(89.0f), x); /* whose power of two is infinite */
    const float round = 12582912.0f;                       /* 1.5 x 2^23: adding it rounds to whole numbers */
    vec shifted = x * 1.44269504f + round, n = shifted - round;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec y = r * 1.9875691500e-4f + 1.3981999507e-3f; /* Cephes' expf polynomial */
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    veci power = ((veci)shifted - (veci)same(round) + 127) << 23;
    return (vec)(~low & (veci)(y * (vec)power)); /* whatever it is there */
}

INLINE vec exp_vec(vec x) { return exp_up_to(x, INFINITY); }

INLINE float exp_one(float x) { return exp_vec(same(x))[0]; }

/* x / (1 + e^-x) */
INLINE vec silu_vec(vec x) { return x / (1.0f + exp_vec(-x)); }

/* 1 / (1 + e^-x) */
INLINE vec sigmoid_vec(vec x) { return 1.0f / (1.0f + exp_vec(-x)); }

/* gate[i] = silu(gate[i]) * up[i] */
PINNED void gated(float *gate, const float *up, long n) {
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH) store(gate + i, silu_vec(load(gate + i)) * load(up + i));
    if (i < n) store_part(gate + i, n - i, silu_vec(load_part(gate + i, n - i, 0)) * load_part(up + i, n - i, 0));
}

/* The sum of a[i] b[i], by lanes. */
INLINE float dot(const float *a, const float *b, long n) {
    vec sum = {0};
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH) sum += load(a + i) * load(b + i);
    if (i < n) sum += load_part(a + i, n - i, 0) * load_part(b + i, n - i, 0);
    return total(sum);
}

/* One row: y = x / sqrt(mean x^2 + eps) * weight; y may be x. Returns what x was multiplied by. */
PINNED float rms_norm(const float *x, const float *weight, long n, float eps, float *y) {
    const float by = 1.0f / sqrtf(dot(x, x, n) / n + eps);
    for (long i = 0; i < n; i++) y[i] = x[i] * by * weight[i];
    return by;
}

/* The largest of x [n], or -inf; NaNs are passed over. */
static inline float largest_of(const float *x, long n) {
    vec most = same(-INFINITY);
    long i = 0;
    for (; i + WIDTH <= n; i += WIDTH) most = larger(load(x + i), most);
    float all = largest_lane(most);
    for (; i < n; i++) all = x[i] > all ? x[i] : all;
    return all;
}

/* One row of n: x[i] = e^(x[i] - max); returns what makes them a softmax, 1 over their sum. `log_sum` may be NULL. */
PINNED float exps_in_place(float *x, long n, float *log_sum) {
    const float most = largest_of(x, n);
    const long left = n % WIDTH, back = n < WIDTH ? 0 : n - WIDTH; /* the last vector overlaps the one before */
    const veci kept = n < WIDTH ? LANES < (int)left : LANES >= (int)(WIDTH - left);
    vec last = n < WIDTH ? load_part(x, n, 0) : load(x + back), sum = {0};
    for (long i = 0; i + WIDTH <= n; i += WIDTH) {
        vec e = exp_up_to(load(x + i) - most, 0);
        store(x + i, e);
        sum += e;
    }
    if (left) {
        last = choose(kept, exp_up_to(last - most, 0), same(0));
        sum += last;
        if (n < WIDTH)
            store_part(x, n, last);
        else
            store(x + back, choose(kept, last, load(x + back)));
    }
    const float all = total(sum);
    if (log_sum) *log_sum = most + logf(all);
    return 1.0f / all;
}

/* y[i] += x[i] */
INLINE void add_to(float *y, const float *x, long n) {
    for (long i = 0; i < n; i++) y[i] += x[i];
}

#endif
