/* What the learner computes in C: forward and backward of the parts of a packed forward. */
#include <stdlib.h>

#include "attend.h"
#include "crew.h"

enum { DONE, NO_MEMORY };

/* Write what each query sees and its log-sum-exp; or, where d_out is given, the gradients. */
int aftershock_attend(Attend *job, long threads) {
    const long units = job->count * job->kv_heads;
    together(attend_work, job, threads < units ? threads : units);
    return job->failed ? NO_MEMORY : DONE;
}
