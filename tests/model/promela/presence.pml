/* Several hosts, one database: who is present, who is lost, and what becomes of the rows of a host that is gone.
 *
 * Here are one host with a row and its operation, the session of its daemons in the database, and an observer:
 * the reaper of another host. What a host does on its own machine is in host.pml, and is short here. Time ticks.
 * Each of these takes at most one tick: the database lets go of the session of a host that is cut off
 * (tcp_user_timeout); a daemon that can reach the database has its session again; an observer that can reach it
 * looks. A host is lost after LOST ticks (host_lost_after).
 *
 *   FAULTS     how many faults may happen, of any kind, in any order, at any step
 *   LIVE       no clock, and the operator says that the host is lost: to check that every row ends
 */
#define LOST 3
#define FAULT faults > 0 -> faults--
#define CHECKED(condition, promise) \
    if :: condition :: else -> printf("STORY BROKEN: "); printf(promise); assert(false) fi

mtype = { absent, pending, running, ended, lost };

byte faults = FAULTS;
byte n;                                              /* of loops; 0 between two steps */
#define FOR_EACH_ROW(statement) do :: n < 2 -> statement; n++ :: else -> break od; n = 0

/* ---------------------------------------------------------------- the database */
bool up = true;                                      /* it answers */
bool session = true;                                 /* it holds the session of the host's daemons */
bool observed = true;                                /* it holds the observer's, unbroken since it last looked */
bool lost_at = false;                                /* it says that the host is lost, until that is back */
bool seen_at = false;                                /* the host has had its session since the observer looked */
mtype row[2] = absent;                               /* one of the host, and its retry */

/* ---------------------------------------------------------------- the host */
bool powered = true;
bool cable = true;
byte hands = 0;                                      /* 1 + the row that its worker is at */
bool hangs = false;                                  /* the worker doesn't respond */
bool child[2];                                       /* a process of the row's operation is there */

#define REACHES (powered && cable && up)
#define LOCK_FREE (!hands && !child[0] && !child[1])

/* ---------------------------------------------------------------- the observer */
bool stopped = false;                                /* SIGSTOP, a long garbage collection */
bool cut = false;                                    /* its own cable */
bool looked = false;                                 /* in this tick */
bool on_time = true;                                 /* no tick went by without a look */
bool missing = false;                                /* it counts: the host was missing at every look so far */
byte counted = 0;                                    /* ticks, by its own steady clock */
bool counted_out = false;                            /* it has counted the host out, and is about to write that */
bool decided = false;                                /* it takes the host for lost, and is about to close its rows */

/* ---------------------------------------------------------------- what is true, whoever knows it */
bool whole_tick = true;                              /* the host has been there all through this tick */
byte gone = 0;                                       /* ticks in which it was not, one after the other, while the
                                                        database was there to see it; counted up to LOST */
bool away = false;                                   /* it was gone for LOST, or so says the operator, and has not
                                                        been there for a whole tick since */

inline end_row(s, how) {
    CHECKED(row[s] == pending || row[s] == running, "a terminal row changes\n");
    row[s] = how
}

inline accept_retry(s) {
    if
    :: s == 0 -> row[1] = pending; printf("STORY a retry of row 0 is accepted\n")
    :: else
    fi
}

/* ---------------------------------------------------------------- the host's daemons */
#define CLAIM(s) REACHES && row[s] == pending && LOCK_FREE -> row[s] = running; hands = s + 1; child[s] = true; \
    printf("STORY the worker claims row %d and starts its child\n", s)
#ifdef LATE_WRITE
#define STILL_OWN(s) true
#else
#define STILL_OWN(s) row[s] == running
#endif
#define WRITE(s) REACHES && hands == s + 1 && !child[s] -> hands = 0; \
    if \
    :: STILL_OWN(s) -> printf("STORY the worker writes the end of row %d\n", s); end_row(s, ended) \
    :: else -> printf("STORY the worker comes to end row %d and is refused\n", s) \
    fi
#define DONE(s) hands == s + 1 && child[s] && !hangs -> child[s] = false; \
    printf("STORY the operation of row %d is done\n", s)

proctype Worker() {
    do
    :: d_step { CLAIM(0) }
    :: d_step { CLAIM(1) }
    :: d_step { DONE(0) }
    :: d_step { DONE(1) }
    :: d_step { WRITE(0) }
    :: d_step { WRITE(1) }
    od
}

#ifdef SURVIVORS_OF_LOST
#define JUDGED(s) row[s] == running
#else
#define JUDGED(s) (row[s] == running || row[s] == lost)
#endif
#ifdef DEADLINE_OF_LOST
#define WATCHED(s) hands == s + 1 && hangs && row[s] == running
#else
#define WATCHED(s) hands == s + 1 && hangs
#endif
#define END_SURVIVORS(s) REACHES && JUDGED(s) && child[s] && hands != s + 1 -> child[s] = false; \
    printf("STORY the host's own reaper ends what is left of row %d\n", s)
#define CLOSE(s) REACHES && row[s] == running && LOCK_FREE -> end_row(s, ended); accept_retry(s); \
    printf("STORY the host's own reaper closes row %d: its worker died\n", s)
#define END_OWNER(s) REACHES && WATCHED(s) -> hands = 0; hangs = false; \
    printf("STORY the host's own reaper ends the worker, which doesn't respond\n")

proctype Reaper() {
    do
    :: d_step { END_SURVIVORS(0) }
    :: d_step { END_SURVIVORS(1) }
    :: d_step { CLOSE(0) }
    :: d_step { CLOSE(1) }
    :: d_step { END_OWNER(0) }
    :: d_step { END_OWNER(1) }
    od
}

/* ---------------------------------------------------------------- the observer */
#ifdef BROKEN_SESSION
#define UNBROKEN true
#else
#define UNBROKEN observed
#endif
#if defined(LONG_LOOK) || defined(CAPPED_LOOK)
#define ON_TIME true
#else
#define ON_TIME on_time
#endif
#ifdef CAPPED_LOOK
#define COUNTS looked                                /* time without a look counts for nothing, and no more */
#else
#define COUNTS true
#endif
#ifdef STALE_COUNT
#define STILL_THE_SAME !session
#else
#define STILL_THE_SAME (!session && !seen_at)
#endif
#if defined(CLOSE_UNSEEN)
#define STILL_LOST true
#elif defined(STALE_WORD)
#define STILL_LOST !session
#else
#define STILL_LOST (!session && lost_at)
#endif
#define CAN_LOOK (!stopped && !cut && up)

inline look() {                                      /* one statement over pg_locks, then its own clock */
    d_step {
        CAN_LOOK && !looked && !decided && !counted_out ->
        if
        :: !session && missing && UNBROKEN && ON_TIME
        :: else -> missing = !session; counted = 0   /* present, or the count begins anew */
        fi;
        looked = true; observed = true; on_time = true; seen_at = false;
        if
        :: missing && counted >= LOST ->
            printf("STORY the observer says that the host is lost\n");
            CHECKED(gone >= LOST, "the host was there, or nobody could tell\n");
            counted_out = !lost_at; decided = true
        :: else -> decided = !session && lost_at     /* another observer has counted, or the operator says it */
        fi
    }
}

inline write_lost() {                                /* one transaction, where the host was not back meanwhile */
    d_step {
        counted_out && CAN_LOOK ->
        counted_out = false;
        if
        :: STILL_THE_SAME -> lost_at = true
        :: else
        fi
    }
}

inline close_lost() {                                /* one transaction, where the host is still lost */
    d_step {
        decided && !counted_out && CAN_LOOK ->
        decided = false;
        FOR_EACH_ROW(
            if
            :: row[n] == running && STILL_LOST ->
                printf("STORY the observer closes row %d: host lost\n", n);
                CHECKED(!session, "the host is present\n");
                CHECKED(away, "the host was there, or nobody could tell\n");
                end_row(n, lost);
                accept_retry(n)
            :: else
            fi)
    }
}

proctype Observer() {
    do
    :: look()
    :: write_lost()
    :: close_lost()
    od
}

/* ---------------------------------------------------------------- time, and everything that may go wrong */
inline be_present() {                                /* one transaction takes the lock and takes back the word */
    session = true; seen_at = true;
#ifndef MARK_STAYS
    lost_at = false;
#endif
    printf("STORY the host has its session again\n")
}

inline be_freed() {
    session = false; whole_tick = false;
    printf("STORY the database lets go of the host's session\n")
}

proctype Time() {
    do
    :: d_step { session && up && !(powered && cable) -> be_freed() }
    :: d_step { !session && REACHES -> be_present() }
    :: d_step {
        looked || !CAN_LOOK || counted_out || decided ->            /* whoever can look has looked */
        printf("STORY (a tick)\n");
        if
        :: session && up && !(powered && cable) -> be_freed()
        :: else
        fi;
        if
        :: !up || whole_tick -> gone = 0
        :: else -> gone = (gone < LOST -> gone + 1 : LOST)
        fi;
        away = (up && whole_tick -> false : away || gone == LOST);
        if
        :: !session && REACHES -> be_present()
        :: else
        fi;
        whole_tick = session;
        on_time = on_time && looked;
        counted = (missing && counted < LOST && COUNTS -> counted + 1 : counted);
        looked = false }
    od
}

#define SESSIONS_GO session = false; observed = false; whole_tick = false; gone = 0

proctype Faults() {
    do
    :: d_step { cable && faults -> faults--; cable = false; printf("STORY the host's cable is cut\n") }
    :: d_step { !cable -> cable = true; printf("STORY the cable is mended\n") }
    :: d_step { powered && faults -> faults--; powered = false; hands = 0; hangs = false;
        child[0] = false; child[1] = false; printf("STORY the host's power goes\n") }
    :: d_step { !powered -> powered = true; printf("STORY the host boots\n") }
    :: d_step { powered && faults && hands -> faults--; hands = 0; hangs = false;
        printf("STORY the worker is killed, its child lives on\n") }
    :: d_step { faults && hands && !hangs -> faults--; hangs = true; printf("STORY the worker hangs\n") }
#ifdef LIVE
    :: d_step { faults && row[0] == running -> faults--; end_row(0, lost); accept_retry(0);
        printf("STORY the operator says that the host is lost\n") }
#else
    :: d_step { up && !session && faults -> faults--; lost_at = true; away = true;
        printf("STORY the operator says that the host is lost\n") }
    :: d_step { FAULT; SESSIONS_GO; printf("STORY the database fails over\n") }
    :: d_step { up && faults -> faults--; SESSIONS_GO; up = false; printf("STORY the database goes away\n") }
    :: d_step { !up -> up = true; printf("STORY the database is back\n") }
    :: d_step { !stopped && faults -> faults--; stopped = true; printf("STORY the observer is stopped\n") }
    :: d_step { stopped -> stopped = false; printf("STORY the observer goes on\n") }
    :: d_step { !cut && faults -> faults--; cut = true; observed = false; printf("STORY the observer's cable is cut\n") }
    :: d_step { cut -> cut = false; printf("STORY the observer's cable is mended\n") }
#endif
    od
}

init {
    atomic {
        row[0] = pending;
        run Worker(); run Reaper(); run Faults();
#ifndef LIVE
        run Observer(); run Time()
#endif
    }
}

#ifdef LIVE
ltl every_row_ends { <> ((row[0] == ended || row[0] == lost) && row[1] != pending && row[1] != running) }
#endif
