/* The protocol of one host, in the words of docs/design.md: deckies, rows, locks, workers, reapers, faults.
 *
 * How to read it: each d_step or atomic is one step of the real thing that nothing can interrupt: a system call
 * (flock, fork, kill), a transaction of the store, or what the kernel does when a process dies. Between two of
 * them anything else may happen, for as long as it likes: a process that is slow, swapped out or stopped
 * (SIGSTOP) is one whose turn doesn't come. A name in #ifdef that isn't in the list below takes one guard of the
 * protocol out: a mutant, see checks.py. docs/proof.md tells what they do.
 *
 *   DECKIES    1: a decky with two rows, of which the first may be retried (MAX_ATTEMPTS 2)
 *              2: deckies with one row each, which may be retried
 *   REAPERS    how many; there are always two workers
 *   FAULTS     how many faults may happen, of any kind, in any order, at any step; a cancel counts as one
 *   LIVE       the queue and deadlines as they are, to check that every row ends. Without it any row may be
 *              delivered at any time, as often as it likes or never, and any row may be found past its deadline
 *              or its time to live.
 * All rows are there from the start: one that isn't accepted yet is one that nobody has looked at yet.
 */
#define WORKERS 2
#define DAEMONS (WORKERS + REAPERS)                  /* workers come first */
#define SLOTS (2 + DECKIES)

/* ---------------------------------------------------------------- the store: one row a slot
 * A decky's slots are in the order of its rows' ids, which is the order of acceptance; a retry has the place of
 * its row. With one decky: row 0, its retry 1, row 2. With two: row 0, its retry 1; row 2, its retry 3.
 * What ended for good is `ended`; what was cut short (its worker died, or was told to stop) is `interrupted`.
 */
mtype = { absent, pending, running, ended, interrupted };

mtype row[SLOTS] = absent;
byte owner[SLOTS];                                   /* 1 + the worker that claimed it, or GONE when that died */
byte claimed_in[SLOTS];                              /* the owner's lock directory */
bool cancel[SLOTS];                                  /* somebody asked for its end while it ran */

#if DECKIES == 1
#define DECKY(s) 0
#define LAST_ATTEMPT(s) ((s) > 0)
#else
#define DECKY(s) ((s) / 2)
#define LAST_ATTEMPT(s) ((s) & 1)
#endif
#define OPEN(s) (row[s] == pending || row[s] == running)
#define BEFORE(s, n) ((s) >= (n) && DECKY((s) - (n)) == DECKY(s) && OPEN((s) - (n)))
#define OLDER_OPEN(s) (BEFORE(s, 1) || BEFORE(s, 2))
#define FIRST_IN_LINE(s) (row[s] == pending && !OLDER_OPEN(s))

/* ---------------------------------------------------------------- the kernel: locks and processes
 * A lock is named by its directory and its decky. It is free when neither a daemon nor a child holds it.
 */
byte directory = 0;                                  /* the lock directory that is at its path now */
byte opened[DAEMONS];                                /* the one that a daemon found there at its start */
byte holds[DAEMONS];                                 /* the lock that it holds; 0 for none */
byte hands[DAEMONS];                                 /* 1 + the row that a worker is at, from claim to end; 0 */
bool dead[DAEMONS];                                  /* it has died; systemd starts it again */
byte child[SLOTS];                                   /* the lock that an operation's process holds; 0: none */

#define GONE 99                                      /* an owner that is dead */
#define UNLOCKED 99                                  /* the lock of a child that holds none, in a mutant */
#define LOCK(dir, decky) (1 + (dir) * DECKIES + (decky))
#define MY_LOCK LOCK(opened[i], DECKY(s))
#define DAEMON_HOLDS(l) (holds[0] == l || holds[1] == l || holds[2] == l || holds[DAEMONS - 1] == l)
#define CHILD_HOLDS(l) (child[0] == l || child[1] == l || child[2] == l || child[SLOTS - 1] == l)
#define FREE(l) (!DAEMON_HOLDS(l) && !CHILD_HOLDS(l))
#define LIVING(s) (child[s] || hands[0] == (s) + 1 || hands[1] == (s) + 1)   /* what may touch the decky for it */
#define SOMEBODY_DIES (dead[0] || dead[1] || dead[2] || dead[DAEMONS - 1])

/* ---------------------------------------------------------------- the rest of the world */
byte faults = FAULTS;                                /* how many may still happen */
#define FAULT faults > 0 -> faults--
#ifdef LIVE
bool queued[SLOTS];                                  /* a delivery of it is in the queue */
bool late[DECKIES];                                  /* what runs on a decky is past its deadline */
bool dropped[SLOTS];                                 /* one was taken while the lock was held, and is gone */
bool redis = true;
#define LATE(s) late[DECKY(s)]
#define FORGET(s) late[DECKY(s)] = false; queued[s] = false
#else
#define LATE(s) true
#define FORGET(s) skip
#endif
byte n;                                              /* of loops; 0 between two steps */
#define FOR_EACH(var, end, statement) do :: var < end -> statement; var++ :: else -> break od; var = 0

/* ---------------------------------------------------------------- what must be true at every step
 * Checked where it could be broken. A mutant is caught by one of these.
 */
#ifdef STORE_FORGETS
#define MUST(condition, promise) skip                /* that mode asks for one thing alone */
#define MUST_OWN(condition, promise) CHECKED(condition, promise)
#else
#define MUST(condition, promise) CHECKED(condition, promise)
#define MUST_OWN(condition, promise) skip
#endif
#define CHECKED(condition, promise) \
    if :: condition :: else -> printf("STORY BROKEN: "); printf(promise); assert(false) fi

inline be_alone(s) {                                 /* at most one operation on a decky at any moment */
    FOR_EACH(n, SLOTS, MUST(n == s || DECKY(n) != DECKY(s) || !LIVING(n),
        "two operations work on one decky\n"))
}

inline be_claimed(i, s) {
    printf("STORY daemon %d claims row %d\n", i, s);
    MUST(!OLDER_OPEN(s), "an older row of the decky still waits\n");
    row[s] = running; owner[s] = i + 1; claimed_in[s] = opened[i]; hands[i] = s + 1;
    be_alone(s)
}

inline be_begun(s) {
    MUST(row[s] == running, "an operation begins for a row that has ended\n");
    be_alone(s)
}

inline end_row(s, how) {
    MUST(OPEN(s), "a terminal row changes\n");
    MUST(!LIVING(s), "the row has ended, its operation is still at work\n");
    row[s] = how; owner[s] = 0; claimed_in[s] = 0; FORGET(s)
}

inline accept_retry(s) {
    MUST(!LAST_ATTEMPT(s), "no attempt was left\n");
    MUST(!cancel[s], "the operator had cancelled it\n");
    row[s + 1] = pending;
    printf("STORY a retry of row %d is accepted\n", s)
}

inline have_retries() {                              /* what was interrupted and may be retried has its retry */
    FOR_EACH(n, SLOTS, MUST(row[n] != interrupted || LAST_ATTEMPT(n) || row[n + 1] != absent,
        "a row was interrupted, and its retry is lost\n"))
}

/* ---------------------------------------------------------------- steps that several take */
inline take_lock(i, s) {                             /* flock(LOCK_EX | LOCK_NB) of a lock that is free */
    holds[i] = LOCK(opened[i], DECKY(s));
    printf("STORY daemon %d takes the lock of decky %d\n", i, DECKY(s))
}

inline release(i) {
    holds[i] = 0;
    printf("STORY daemon %d releases the lock\n", i)
}

/* What was read of a row may be old: it has ended since. Then a lock is taken and released for nothing. */
#define STALE(decky) FREE(LOCK(opened[i], decky)) -> holds[i] = LOCK(opened[i], decky)

inline enqueue_next(s) {                             /* whoever finishes on a decky enqueues its next row */
#if defined(LIVE) && !defined(NO_NEXT)
    FOR_EACH(n, SLOTS, queued[n] = queued[n] || (redis && DECKY(n) == DECKY(s) && FIRST_IN_LINE(n)))
#else
    skip
#endif
}

inline disown(d) {                                   /* its rows have a dead owner */
    FOR_EACH(n, SLOTS, owner[n] = (owner[n] == d + 1 -> GONE : owner[n]));
    hands[d] = 0; holds[d] = 0; dead[d] = true
}

#define CHILD_OF(d) (hands[d] && child[hands[d] - 1])

inline die(d) {                                      /* what the kernel does when daemon d is gone */
    if
    :: CHILD_OF(d) -> child[hands[d] - 1] = 0; printf("STORY its child dies with it\n")
    :: else
    fi;
    disown(d);
    have_retries()
}

inline die_alone(d) {                                /* the same; what it had started lives on */
    printf("STORY its child lives on\n");
    disown(d);
    have_retries()
}

#include "worker.pml"
#include "reaper.pml"
#include "faults.pml"

init {
    atomic {
        run Worker(0); run Worker(1);
        run Reaper(2);
#if REAPERS > 1
        run Reaper(3);
#endif
        row[0] = pending; row[2] = pending;
#ifdef LIVE
        queued[0] = true; queued[2] = true;
#endif
        run Faults(); run Time()
    }
}

#ifdef LIVE
ltl every_row_ends { <> (row[0] != absent && !OPEN(0) && !OPEN(1) && !OPEN(2) && !OPEN(SLOTS - 1)) }
#endif
