/* Threads that take one step together: each runs the same code over its share, and they meet between the parts. */
#ifndef AFTERSHOCK_CREW_H
#define AFTERSHOCK_CREW_H

#include <pthread.h>

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t all;
    long count, waiting, round;
} Crew;

typedef struct {
    Crew *crew; /* NULL: works alone */
    long index;
} Worker;

/* Wait until every worker of the crew has come here. Asleep, not spinning: cores may be shared. */
static inline void meet(const Worker *me) {
    Crew *crew = me->crew;
    if (!crew || crew->count == 1) return;
    pthread_mutex_lock(&crew->lock);
    const long round = crew->round;
    if (++crew->waiting == crew->count) {
        crew->waiting = 0;
        crew->round++;
        pthread_cond_broadcast(&crew->all);
    } else {
        while (crew->round == round) pthread_cond_wait(&crew->all, &crew->lock);
    }
    pthread_mutex_unlock(&crew->lock);
}

/* This worker's part of n things, in whole multiples of `step` but for the last one's. */
static inline void share(const Worker *me, long n, long step, long *first, long *last) {
    const long count = me->crew ? me->crew->count : 1, steps = (n + step - 1) / step;
    *first = steps * me->index / count * step;
    *last = steps * (me->index + 1) / count * step;
    if (*first > n) *first = n;
    if (*last > n) *last = n;
}

typedef void (*Work)(const Worker *me, void *job);

typedef struct {
    Worker me;
    Work work;
    void *job;
} Hired;

static inline void *hire(void *given) {
    Hired *hired = given;
    pthread_mutex_lock(&hired->me.crew->lock);
    pthread_mutex_unlock(&hired->me.crew->lock);
    hired->work(&hired->me, hired->job);
    return NULL;
}

#define MOST 256 /* threads */

/* Run `work` by `threads` workers, this thread among them. Begun anew each time, which takes some 20 us a thread and
 * leaves nothing that a fork could break; where the system gives no thread, this one works alone. */
static inline void together(Work work, void *job, long threads) {
    Crew crew = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 1, 0, 0};
    Hired hired[MOST];
    pthread_t thread[MOST];
    if (threads > MOST) threads = MOST;
    pthread_mutex_lock(&crew.lock); /* held until the count is known */
    long begun = 1;
    for (; begun < threads; begun++) {
        hired[begun] = (Hired){{&crew, begun}, work, job};
        if (pthread_create(&thread[begun], NULL, hire, &hired[begun])) break;
    }
    crew.count = begun;
    pthread_mutex_unlock(&crew.lock);
    const Worker me = {&crew, 0};
    work(&me, job);
    for (long i = 1; i < begun; i++) pthread_join(thread[i], NULL);
}

#endif
