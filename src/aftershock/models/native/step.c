/* One token for each of a cache's rows, or several of one: a decoder's whole step, and the draw from its logits. */
#include <stdlib.h>

#include "branch.h"
#include "crew.h"
#include "draw.h"
#include "experts.h"
#include "gemm.h"
#include "grouped.h"
#include "latent.h"

typedef struct {
    const float *input_norm, *post_norm; /* [hidden] */
    Grouped attention;
    Packed q, k, v, out;
    Packed gate, up, down;
    const Latent *latent;   /* instead of grouped attention, and */
    const Mixture *mixture; /* instead of one MLP, where they are given; then every worker takes rows of its own */
} Layer;

typedef struct {
    long layers, hidden, inner;
    float eps;
    long large; /* whether threads share each layer's outputs, and not the rows */
    const float *embedding, *norm;
    Packed head;
    const Layer *layer;
} Model;

typedef struct {
    const Model *model;
    const long *tokens, *starts; /* [rows]; a row is a token, */
    const long *places;          /* and the cache's row that it goes on; those of one place lie together, ascending */
    long rows, room;
    const float *cos, *sin;      /* [at least the longest row][dim] */
    float *const *stores;        /* keys and values of each layer, [cache rows][kv heads][room][dim] */
    float *logits;               /* [rows][vocab]; NULL: keys and values are all that is wanted */
    Draws *draws;                /* what draws from them, NULL where nothing does, and with it */
    const Moves *moves;          /* the stores as what is moved, and */
    const long *next;            /* [cache rows]: the row that draws from the same logits, and so on; -1: none */
} Step;

#define ALONE 16     /* rows, and */
#define DRAWN 32768  /* logits that are worth a thread of their own */
#define CHUNK 96     /* rows that pass all layers together: their values stay in a core's own cache */

/* Rows that take many steps together, a multiple of TILE. Few keep keys and values in a cache, many share more of what
 * they have drawn; and where products are twice as quick, fetching a model's weights takes too long for few. */
#define SOME (TILE > 6 ? 192 : 96)

/* What `rows` rows are worked in. */
typedef struct {
    float *x, *normed, *q, *k, *v, *wide, *up, *weights, *work, *all;
} Scratch;

/* What the widest latent attention or mixture works in. */
static long worked(const Model *m, long rows, long room) {
    long most = 0;
    for (const Layer *l = m->layer; l < m->layer + m->layers; l++) {
        const long latent = l->latent ? latent_scratch(l->latent, room) : 0;
        const long mixture = l->mixture ? mixture_scratch(l->mixture, rows) : 0;
        most = most > latent ? most : latent;
        most = most > mixture ? most : mixture;
    }
    return most;
}

static Scratch scratch(const Model *m, long rows, long longest) {
    const Grouped *a = &m->layer->attention;
    if (a->kv_heads) longest *= a->heads / a->kv_heads;
    const long q = rows * a->heads * a->dim, k = rows * a->kv_heads * a->dim, x = rows * m->hidden;
    Scratch s;
    s.all = malloc(4 * (2 * x + q + 2 * k + 2 * rows * m->inner + longest + worked(m, rows, longest)));
    s.x = s.all;
    s.normed = s.x + x;
    s.q = s.normed + x;
    s.k = s.q + q;
    s.v = s.k + k;
    s.wide = s.v + k;
    s.up = s.wide + rows * m->inner;
    s.weights = s.up + rows * m->inner;
    s.work = s.weights + longest;
    return s;
}

/* This worker's part of a product of all rows. */
static void multiply(const Worker *me, const Packed *w, const float *x, long rows, float *y) {
    long first, last;
    share(me, w->outs, PANEL, &first, &last);
    if (first < last)
        product_part(w, first, last, x, rows, w->ins, y, w->outs, next_panel(w, first, rows));
}

static void norm_rows(const Worker *me, const float *x, const float *weight, long n, float eps, long rows, float *y) {
    long first, last;
    share(me, rows, 1, &first, &last);
    for (long r = first; r < last; r++) rms_norm(x + r * n, weight, n, eps, y + r * n);
}

/* This worker's part of x += y, and of the norm that follows. */
static void add_and_norm(const Worker *me, float *x, const float *y, const float *weight, const Model *m, long rows,
                         float *to) {
    long first, last;
    share(me, rows, 1, &first, &last);
    for (long i = first * m->hidden; i < last * m->hidden; i++) x[i] += y[i];
    norm_rows(me, x, weight, m->hidden, m->eps, rows, to);
}

static void attend(const Worker *me, const Step *step, long layer, long from, long rows, Scratch *s) {
    const Layer *l = step->model->layer + layer;
    const Grouped *a = &l->attention;
    const long taken = a->kv_heads * step->room * a->dim;
    float *keys = step->stores[2 * layer], *values = step->stores[2 * layer + 1];
    long first, last;
    multiply(me, &l->q, s->normed, rows, s->q);
    multiply(me, &l->k, s->normed, rows, s->k);
    multiply(me, &l->v, s->normed, rows, s->v);
    meet(me);
    share(me, rows, 1, &first, &last);
    for (long r = first; r < last; r++)
        grouped_store(a, s->k + r * l->k.outs, s->v + r * l->v.outs, step->cos, step->sin, step->starts[from + r],
                      step->room, keys + step->places[from + r] * taken, values + step->places[from + r] * taken);
    meet(me); /* another worker may have a prompt's tokens before these */
    for (long r = first; r < last; r++)
        grouped_see(a, s->q + r * l->q.outs, step->cos, step->sin, step->starts[from + r], step->room,
                    keys + step->places[from + r] * taken, values + step->places[from + r] * taken,
                    s->weights + me->index * step->room * (a->heads / a->kv_heads));
    meet(me);
    multiply(me, &l->out, s->q, rows, s->normed);
    meet(me);
}

static void attend_latents(const Step *step, long layer, long from, long rows, Scratch *s) {
    const Latent *a = step->model->layer[layer].latent;
    latent_attention(a, s->normed, rows, step->cos, step->sin, step->starts + from, step->places + from,
                     step->stores[layer], step->room, s->normed, s->work);
}

static void feed(const Worker *me, const Layer *l, long rows, Scratch *s) {
    long first, last;
    multiply(me, &l->gate, s->normed, rows, s->wide);
    multiply(me, &l->up, s->normed, rows, s->up);
    meet(me);
    share(me, rows * l->gate.outs, WIDTH, &first, &last);
    gated(s->wide + first, s->up + first, last - first);
    meet(me);
    multiply(me, &l->down, s->wide, rows, s->normed);
    meet(me);
}

/* Draw from this worker's part of the logits of rows from `from` on. */
static void draw_part(const Worker *me, const Step *step, long from, long rows) {
    const long vocab = step->model->head.outs;
    Odds odds = new_odds(vocab);
    long first, last;
    share(me, rows, 1, &first, &last);
    if (!odds.sums) step->draws->failed = 1;
    for (long r = from + first; odds.sums && r < from + last; r++) {
        weigh(&odds, step->logits + r * vocab, step->draws->bias, step->draws->heat);
        for (long row = step->places[r]; row >= 0; row = step->next[row]) record(step->draws, row, &odds);
    }
    free(odds.sums);
}

/* Rows from `from` on through all layers, with all of `me`'s crew. */
static void pass(const Worker *me, const Step *step, long from, long rows, Scratch *s) {
    const Model *m = step->model;
    long first, last;
    share(me, rows, 1, &first, &last);
    for (long r = first; r < last; r++)
        memcpy(s->x + r * m->hidden, m->embedding + step->tokens[from + r] * m->hidden, 4 * m->hidden);
    norm_rows(me, s->x, m->layer->input_norm, m->hidden, m->eps, rows, s->normed);
    meet(me);
    for (long i = 0; i < m->layers; i++) {
        const Layer *l = m->layer + i;
        if (l->latent)
            attend_latents(step, i, from, rows, s);
        else
            attend(me, step, i, from, rows, s);
        add_and_norm(me, s->x, s->normed, l->post_norm, m, rows, s->normed);
        meet(me);
        if (l->mixture)
            mixture(l->mixture, s->normed, rows, s->normed, s->work);
        else
            feed(me, l, rows, s);
        add_and_norm(me, s->x, s->normed, i + 1 < m->layers ? l[1].input_norm : m->norm, m, rows, s->normed);
        meet(me);
    }
    if (step->logits) multiply(me, &m->head, s->normed, rows, step->logits + from * m->head.outs);
    meet(me);
    if (step->draws) draw_part(me, step, from, rows);
}

typedef struct {
    const Step *step;
    Scratch shared;  /* of a large model, whose rows all workers take together */
    volatile long failed;
} Job;

/* Where `row`'s place begins: what one worker writes there, only it reads. */
static long begun(const Step *step, long row) {
    while (row > 0 && row < step->rows && step->places[row] == step->places[row - 1]) row--;
    return row;
}

/* A small model's worker takes rows of its own through the whole model, and meets nobody. */
static void step_rows(const Worker *me, Job *job) {
    const Worker alone = {NULL, 0};
    const Step *step = job->step;
    long first, last;
    share(me, step->rows, TILE, &first, &last);
    first = begun(step, first);
    last = begun(step, last);
    const long chunk = last - first < CHUNK ? last - first : CHUNK;
    if (first == last) return;
    Scratch s = scratch(step->model, chunk, step->room);
    if (!s.all) job->failed = 1;
    for (long from = first; s.all && from < last; from += chunk)
        pass(&alone, step, from, last - from < chunk ? last - from : chunk, &s);
    free(s.all);
}

static void step_work(const Worker *me, void *given) {
    Job *job = given;
    if (!job->step->model->large)
        step_rows(me, job);
    else
        pass(me, job->step, 0, job->step->rows, &job->shared);
}

enum { DONE, NO_MEMORY, BAD_TOKEN };

static int once(const Step *step, long threads) {
    const Model *m = step->model;
    Job job = {.step = step};
    if (m->large) {
        job.shared = scratch(m, step->rows, threads * step->room);
        if (!job.shared.all) return NO_MEMORY;
    } else if (threads > (step->rows + ALONE - 1) / ALONE) {
        threads = (step->rows + ALONE - 1) / ALONE;
    }
    together(step_work, &job, threads);
    free(job.shared.all);
    return job.failed || (step->draws && step->draws->failed) ? NO_MEMORY : DONE;
}

/* Rows that draw on, in branches, and the next step of those that are fed. */
typedef struct {
    Branches branches;
    Step step;
    long *fed; /* [3][rows], and what the branches lie in; to be freed */
} Going;

/* For up to `rows` rows at a time of `step`'s; without memory `fed` is NULL. */
static Going new_going(const Step *step, long rows) {
    Going g = {.step = *step, .fed = malloc(8 * (3 * rows + 2 * step->rows))};
    g.branches = (Branches){.draws = step->draws, .moves = step->moves, .next = g.fed + 3 * rows};
    g.branches.holds = g.branches.next + step->rows;
    g.step.next = g.branches.next;
    return g;
}

static void begin_rows(Going *g, const Step *step, long from, long to) {
    g->branches.from = from, g->branches.to = to;
    g->step.logits = step->logits + from * step->model->head.outs;
    find_branches(&g->branches);
}

/* Whether any of `step`'s rows goes on: then `g->step` is the next one of those that are fed. */
static int go_on(Going *g, const Step *step) {
    const Branches *b = &g->branches;
    const long most = b->to - b->from;
    long n = 0;
    for (long r = b->from; r < b->to; r++) {
        if (b->holds[r] >= 0 || step->draws->ended[r]) continue;
        g->fed[n] = step->tokens[r];
        g->fed[n + most] = step->starts[r];
        g->fed[n++ + 2 * most] = r;
    }
    g->step.rows = n, g->step.tokens = g->fed, g->step.starts = g->fed + most, g->step.places = g->fed + 2 * most;
    return n > 0;
}

/* Rows that drew another token than what is fed for them part from it. */
static void have_drawn(Going *g) {
    __atomic_fetch_add(&g->step.draws->fed, g->step.rows, __ATOMIC_RELAXED);
    for (long i = 0; i < g->step.rows; i++) part_ways(&g->branches, g->step.places[i]);
}

/* Draw up to `count` tokens for each row of a large dense model, until it may have ended. */
static int draw_together(const Step *step, long count, long threads) {
    Going g = new_going(step, step->rows);
    if (!g.fed) return NO_MEMORY;
    begin_rows(&g, step, 0, step->rows);
    int code = DONE;
    for (long n = 0; n < count && code == DONE && go_on(&g, step); n++) {
        code = once(&g.step, threads);
        have_drawn(&g);
    }
    leave_branches(&g.branches);
    free(g.fed);
    return code;
}

typedef struct {
    const Step *step;
    long count, some;
    volatile long next; /* row that nobody has taken */
    volatile long failed;
} Apart;

/* A worker takes some rows at a time through all their steps, so that their keys and values stay in a cache. */
static void draw_some(const Worker *me, void *given) {
    (void)me;
    Apart *job = given;
    const Worker alone = {NULL, 0};
    const long rows = job->step->rows, some = job->some;
    Going g = new_going(job->step, some);
    Scratch s = scratch(job->step->model, some, job->step->room);
    if (!g.fed || !s.all) job->failed = 1;
    for (long from; !job->failed && (from = __atomic_fetch_add(&job->next, some, __ATOMIC_RELAXED)) < rows;) {
        begin_rows(&g, job->step, from, least(from + some, rows));
        for (long n = 0; n < job->count && !job->failed && go_on(&g, job->step); n++) {
            pass(&alone, &g.step, 0, g.step.rows, &s);
            have_drawn(&g);
        }
        leave_branches(&g.branches);
    }
    free(s.all);
    free(g.fed);
}

/* Draw up to `count` tokens for each row of a small model or a mixture, until it may have ended. */
static int draw_apart(const Step *step, long count, long threads) {
    threads = least(threads, (step->rows + ALONE - 1) / ALONE);
    const long each = whole((step->rows + threads - 1) / threads, TILE), most = count > 1 ? SOME : CHUNK;
    Apart job = {.step = step, .count = count, .some = least(most, each)};
    together(draw_some, &job, threads);
    return job.failed || step->draws->failed ? NO_MEMORY : DONE;
}

/* Feed each row's token; where it is drawn from, up to `count` tokens, all but the first the ones drawn. */
int aftershock_step(const Step *step, long count, long threads) {
    for (long r = 0; r < step->rows; r++)
        if (step->tokens[r] < 0 || step->tokens[r] >= step->model->head.outs) return BAD_TOKEN;
    if (!step->draws) return once(step, threads);
    return (step->model->large ? draw_together : draw_apart)(step, count, threads);
}

typedef struct {
    const float *logits; /* [rows][vocab] */
    const float *bias;   /* [vocab], or NULL */
    long rows, vocab;
    const double *uniforms; /* [rows] */
    float heat;
    long *tokens;        /* [rows], and so the others */
    float *own, *sampled;
    volatile long failed;
} Draw;

static void draw_work(const Worker *me, void *given) {
    Draw *d = given;
    long first, last;
    share(me, d->rows, 1, &first, &last);
    Odds odds = new_odds(d->vocab);
    if (!odds.sums) d->failed = 1;
    for (long r = first; odds.sums && r < last; r++) {
        weigh(&odds, d->logits + r * d->vocab, d->bias, d->heat);
        draw_one(&odds, d->uniforms[r], d->tokens + r, d->own + r, d->sampled + r);
    }
    free(odds.sums);
}

/* Draw one token a row. */
int aftershock_draw(Draw *draw, long threads) {
    const long worth = draw->rows * draw->vocab / DRAWN + 1;
    together(draw_work, draw, threads < worth ? threads : worth);
    return draw->failed ? NO_MEMORY : DONE;
}

/* How many floats `aftershock_pack` writes for a matrix [outs][ins], and that. */
long aftershock_packed_size(long outs, long ins) { return packed_size(outs, ins); }

void aftershock_pack(const float *w, long outs, long ins, float *to) { pack(w, outs, ins, to); }

void aftershock_copy_rows(const Moves *moves) { copy_rows(moves); }

void aftershock_widen(const Moves *moves) { widen(moves); }
