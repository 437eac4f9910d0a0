/* ---------------------------------------------------------------- a reaper
 * It reads a row, takes its lock, and closes it under the lock. While a row runs, nothing but the death of its
 * owner changes what was read of it.
 */
#ifdef ANY_DIRECTORY
#define JUDGED(s) true
#elif defined(ONLY_OWN_DIRECTORY)
#define JUDGED(s) (claimed_in[s] == opened[i])
#else
#define JUDGED(s) (claimed_in[s] == opened[i] || owner[s] == GONE)   /* so is every owner of an earlier boot */
#endif
#define HELD(k) (!FREE(LOCK(opened[i], DECKY(k))))

inline end_survivors(s) {                            /* of a row whose owner is dead */
    child[s] = 0;
    printf("STORY daemon %d ends what is left of row %d\n", i, s)
}

inline close_orphan() {                              /* one transaction: the end, and the retry if there is one */
    d_step {
        if
        :: row[s] == running ->
            printf("STORY daemon %d closes row %d: its worker died\n", i, s);
            if
#ifndef CANCEL_FORGOTTEN
            :: cancel[s] -> end_row(s, ended)
#endif
            :: else -> end_row(s, interrupted)
            fi
#ifndef RETRY_APART
            ; if
#ifdef RETRY_FOREVER
            :: row[s] == interrupted -> accept_retry(s)
#else
            :: row[s] == interrupted && !LAST_ATTEMPT(s) -> accept_retry(s)
#endif
            :: else
            fi
#endif
        :: else
        fi
    }
#ifdef RETRY_APART
    ; d_step { if :: row[s] == interrupted && !LAST_ATTEMPT(s) && row[s + 1] == absent -> accept_retry(s) :: else fi }
#endif
}

inline close_it() {                                  /* the lock is held */
#ifndef SURVIVORS_ELSEWHERE
    if
    :: d_step { row[s] == running && claimed_in[s] != opened[i] -> end_survivors(s) }
    :: row[s] != running || claimed_in[s] == opened[i]
    fi;
#endif
#ifdef RELEASE_EARLY
    atomic { release(i) };
#endif
    close_orphan();
over: atomic { release(i); enqueue_next(s); s = 0 }
}

#define READ(k) row[k] == running && JUDGED(k)
#define TAKE(k) READ(k) && !HELD(k) -> s = k; take_lock(i, s)
#define EXPIRE(k) row[k] == pending -> end_row(k, ended); printf("STORY daemon %d closes row %d: not started in time\n", i, k)
#define HELD_BY_DEAD(k) READ(k) && HELD(k) && owner[k] == GONE
#define REDELIVER(k) FIRST_IN_LINE(k) && redis && !queued[k] -> queued[k] = true
#define OVERDUE(k, w) (READ(k) && HELD(k) && owner[k] == w + 1 && LATE(k))
#define OVERDUE_ROW(w) (OVERDUE(0, w) || OVERDUE(1, w) || OVERDUE(2, w) || OVERDUE(SLOTS - 1, w))
#define END_OWNER(w) printf("STORY daemon %d ends daemon %d\n", i, w)

proctype Reaper(byte i) provided (dead[i] || !SOMEBODY_DIES) {
    byte s;
alive:
    {
    do
#ifdef LIVE
#ifndef NO_REDELIVERY
    :: d_step { REDELIVER(0) }
    :: d_step { REDELIVER(1) }
    :: d_step { REDELIVER(2) }
    :: d_step { REDELIVER(SLOTS - 1) }
#endif
#else
    :: d_step { EXPIRE(0) }
    :: d_step { EXPIRE(1) }
    :: d_step { EXPIRE(2) }
    :: d_step { EXPIRE(SLOTS - 1) }
    :: d_step { STALE(0) }; goto over
    :: d_step { STALE(DECKIES - 1) }; goto over
#endif
#ifndef KEEP_SURVIVORS
    :: d_step { HELD_BY_DEAD(0) && child[0] -> end_survivors(0) }
    :: d_step { HELD_BY_DEAD(1) && child[1] -> end_survivors(1) }
    :: d_step { HELD_BY_DEAD(2) && child[2] -> end_survivors(2) }
    :: d_step { HELD_BY_DEAD(SLOTS - 1) && child[SLOTS - 1] -> end_survivors(SLOTS - 1) }
#endif
#ifndef NO_DEADLINE
    :: d_step { OVERDUE_ROW(0) -> END_OWNER(0); die(0) }
    :: d_step { OVERDUE_ROW(1) -> END_OWNER(1); die(1) }
    :: d_step { OVERDUE_ROW(0) && CHILD_OF(0) -> END_OWNER(0); die_alone(0) }
    :: d_step { OVERDUE_ROW(1) && CHILD_OF(1) -> END_OWNER(1); die_alone(1) }
#endif
    :: if
       :: d_step { TAKE(0) }
       :: d_step { TAKE(1) }
       :: d_step { TAKE(2) }
       :: d_step { TAKE(SLOTS - 1) }
       fi;
       close_it()
#ifdef EXPIRE_UNSEEN
    :: row[0] == pending -> d_step { end_row(0, ended); printf("STORY daemon %d closes row 0: not started in time\n", i) }
#endif
#ifdef LOOK_THEN_READ
    :: d_step { FREE(LOCK(opened[i], 0)) -> printf("STORY daemon %d finds the lock free\n", i) };
       row[0] == running -> s = 0; close_orphan()
#endif
#ifdef CLOSE_OVERDUE
    :: OVERDUE(0, 0) -> s = 0; close_orphan()
#endif
#ifdef END_ANY_HOLDER
    :: HELD_BY_DEAD(0) -> d_step { DAEMON_HOLDS(LOCK(opened[i], 0)) -> printf("STORY daemon %d ends the holder\n", i); MUST(false, "that process had nothing to do with the row\n") }
#endif
    od
    } unless { dead[i] };
    d_step { dead[i] = false; opened[i] = directory; s = 0 };
    goto alive
}
