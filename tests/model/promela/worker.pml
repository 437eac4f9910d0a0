/* ---------------------------------------------------------------- a worker */
#ifdef LIVE
#ifdef NO_POLL
#define DELIVERED(k) (redis && queued[k])
#else
#define DELIVERED(k) (redis && queued[k] || !redis && FIRST_IN_LINE(k))      /* while it is away: asks the store */
#endif
#define DROP(k) redis && queued[k] && !dropped[k] && !FREE(LOCK(opened[i], DECKY(k))) -> queued[k] = false; dropped[k] = true
#define CONSUME(k) queued[k] = false
#else
#define DELIVERED(k) true
#define CONSUME(k) skip
#endif
#ifdef CLAIM_BEFORE_LOCK
#define TRY(k) DELIVERED(k) && row[k] == pending -> CONSUME(k); s = k
#else
#define TRY(k) DELIVERED(k) && row[k] == pending && FREE(LOCK(opened[i], DECKY(k))) -> CONSUME(k); s = k; take_lock(i, s)
#endif

inline deliver() {                                   /* a delivery comes, and the decky's lock is free */
    do
    :: d_step { TRY(0) }; break
    :: d_step { TRY(1) }; break
    :: d_step { TRY(2) }; break
    :: d_step { TRY(SLOTS - 1) }; break
#ifdef LIVE
    :: d_step { DROP(0) }                            /* whoever holds the lock enqueues the decky's next row */
    :: d_step { DROP(1) }
    :: d_step { DROP(2) }
    :: d_step { DROP(SLOTS - 1) }
#else
    :: d_step { STALE(0) }; goto over
    :: d_step { STALE(DECKIES - 1) }; goto over
#endif
    od
}

inline operate() {                                   /* the child, and how it ends as the worker sees it */
    d_step {
#ifdef CHILD_WITHOUT_LOCK
        child[s] = UNLOCKED;
#else
        child[s] = MY_LOCK;
#endif
        printf("STORY daemon %d starts the child of row %d\n", i, s);
        be_begun(s)
    };
    if
    :: d_step { child[s] = 0; printf("STORY the operation of row %d is done\n", s) }
    :: printf("STORY the operation of row %d is done, a process of it stays\n", s)
    :: d_step { again = true; printf("STORY daemon %d is told to stop and won't wait longer\n", i) }
    :: d_step { cancel[s] -> printf("STORY daemon %d sees that row %d is cancelled\n", i, s) }
    :: d_step { FAULT; printf("STORY daemon %d hangs\n", i) }; false
    :: d_step { FAULT; hands[i] = 0; child[s] = 0; printf("STORY daemon %d gives row %d up by a defect\n", i, s) };
        goto over
    fi;
    if
#ifndef LEAVE_SURVIVORS
    :: d_step { child[s] -> child[s] = 0; printf("STORY daemon %d ends what is left of row %d\n", i, s) }
#endif
    :: else
    fi
}

inline write_end() {                                 /* one transaction: the end, and the retry if there is one */
    d_step {
        hands[i] = 0;
        if
#ifndef CANCEL_FORGOTTEN
        :: cancel[s] -> again = false
#endif
        :: else
        fi;
        if
#ifdef NO_OWNER
        :: row[s] == running ->
#else
        :: row[s] == running && owner[s] == i + 1 ->
#endif
            printf("STORY daemon %d writes the end of row %d\n", i, s);
            MUST_OWN(owner[s] == i + 1, "the row is another worker's\n");
            end_row(s, (again -> interrupted : ended));
            if
#ifdef RETRY_FOREVER
            :: again -> accept_retry(s)
#else
            :: again && !LAST_ATTEMPT(s) -> accept_retry(s)
#endif
            :: else
            fi
        :: else -> printf("STORY daemon %d comes to end row %d and is refused\n", i, s)
        fi;
        again = false
    }
}

proctype Worker(byte i) provided (dead[i] || !SOMEBODY_DIES) {
    byte s;
    bool again;                                      /* the operation was cut short, and is to be retried */
alive:
    {
    do
    ::  deliver();
        if
#ifdef OUT_OF_TURN
        :: d_step { row[s] == pending -> be_claimed(i, s) }
        :: row[s] != pending -> goto over
#else
        :: d_step { FIRST_IN_LINE(s) -> be_claimed(i, s) }
        :: !FIRST_IN_LINE(s) -> goto over
#endif
        fi;
#ifdef CLAIM_BEFORE_LOCK
        d_step { FREE(MY_LOCK) -> take_lock(i, s) };
#endif
        operate();
        write_end();
over:   atomic { release(i); enqueue_next(s); s = 0 }
    od
    } unless { dead[i] };
    d_step { dead[i] = false; opened[i] = directory; s = 0; again = false };
    goto alive
}
