/* ---------------------------------------------------------------- faults, and time */
#define KILL(d) FAULT; printf("STORY daemon %d is killed\n", d)

proctype Faults() provided (!SOMEBODY_DIES) {
    byte d;
    do
    :: d_step { KILL(0); die(0) }
    :: d_step { KILL(1); die(1) }
    :: d_step { KILL(2); die(2) }
    :: d_step { KILL(DAEMONS - 1); die(DAEMONS - 1) }
    :: d_step { CHILD_OF(0) && faults -> KILL(0); die_alone(0) }
    :: d_step { CHILD_OF(1) && faults -> KILL(1); die_alone(1) }
#ifdef REPLACED
    :: d_step { FAULT; printf("STORY the lock directory is replaced\n"); directory++ }
#endif
    :: d_step { FAULT; printf("STORY the machine reboots\n"); directory++;
        FOR_EACH(n, SLOTS, child[n] = 0);
        do :: d < DAEMONS -> disown(d); d++ :: else -> break od; d = 0 }
    :: d_step { faults && row[0] == running -> faults--; cancel[0] = true;
        printf("STORY the end of row 0 is asked for\n") }
#ifdef LIVE
    :: d_step { FAULT; printf("STORY the queue is emptied\n"); FOR_EACH(n, SLOTS, queued[n] = false) }
    :: d_step { FAULT; printf("STORY the queue goes away\n"); redis = false;
        FOR_EACH(n, SLOTS, queued[n] = false) }
    :: d_step { !redis -> printf("STORY the queue is back\n"); redis = true }           /* or never */
#endif
#ifdef STORE_FORGETS
    :: d_step { faults && row[0] == running -> faults--; row[0] = pending; owner[0] = 0; claimed_in[0] = 0;
        printf("STORY the store forgets the claim of row 0\n") }
#endif
    :: break
    od
}

/* A daemon whose lock directory was replaced ends, or its watchdog ends it. Deadlines pass. */
#define RUNS_ON(d) (OPENED(0, d) || OPENED(1, d) || OPENED(2, d) || OPENED(SLOTS - 1, d))
#define OPENED(k, d) (DECKY(k) == d && row[k] == running)
#define ASTRAY(d) opened[d] != directory -> printf("STORY daemon %d finds its lock directory replaced and ends\n", d)

proctype Time() provided (!SOMEBODY_DIES) {
    do
#ifdef LIVE
    :: RUNS_ON(0) && !late[0] -> late[0] = true
    :: RUNS_ON(DECKIES - 1) && !late[DECKIES - 1] -> late[DECKIES - 1] = true
#endif
    :: d_step { ASTRAY(0); die(0) }
    :: d_step { ASTRAY(1); die(1) }
    :: d_step { ASTRAY(2); die(2) }
    :: d_step { ASTRAY(DAEMONS - 1); die(DAEMONS - 1) }
    :: d_step { CHILD_OF(0) && ASTRAY(0); die_alone(0) }
    :: d_step { CHILD_OF(1) && ASTRAY(1); die_alone(1) }
    od
}
