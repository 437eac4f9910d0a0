-- What a PostgreSQL store refuses, whoever writes, and who may do what in it: for the migrations.

-- What is made below names its schema and not the session's: pg_temp last, or a role's own temporary table
-- would stand in the place of ours.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- ids and names sort by their bytes, whatever the database's own collation is
ALTER TABLE decky_lifecycle
    ALTER id TYPE varchar(64) COLLATE "C",
    ALTER decky_name TYPE varchar(128) COLLATE "C",
    ALTER host_uuid TYPE varchar(64) COLLATE "C";
ALTER TABLE decky_deployed
    ALTER decky_name TYPE varchar(128) COLLATE "C",
    ALTER host TYPE varchar(64) COLLATE "C";

-- A trigger's condition costs next to nothing; the function runs only to refuse.

CREATE FUNCTION decnet_reaper_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'check_violation';
END $$;

CREATE TRIGGER decky_lifecycle_terminal BEFORE UPDATE ON decky_lifecycle FOR EACH ROW
    WHEN (OLD.status NOT IN ('pending', 'running'))
    EXECUTE FUNCTION decnet_reaper_refuse('nothing leaves a terminal row');
CREATE TRIGGER decky_lifecycle_backward BEFORE UPDATE ON decky_lifecycle FOR EACH ROW
    WHEN (OLD.status = 'running' AND NEW.status = 'pending')
    EXECUTE FUNCTION decnet_reaper_refuse('a running row never becomes pending again');
CREATE TRIGGER decky_lifecycle_identity BEFORE UPDATE ON decky_lifecycle FOR EACH ROW
    WHEN ((OLD.id, OLD.decky_name, OLD.host_uuid, OLD.operation)
          IS DISTINCT FROM (NEW.id, NEW.decky_name, NEW.host_uuid, NEW.operation))
    EXECUTE FUNCTION decnet_reaper_refuse('id, decky_name, host_uuid and operation never change');
CREATE TRIGGER decky_lifecycle_delete BEFORE DELETE ON decky_lifecycle FOR EACH ROW
    WHEN (OLD.status IN ('pending', 'running'))
    EXECUTE FUNCTION decnet_reaper_refuse('only a terminal row may be deleted');
CREATE TRIGGER decky_lifecycle_truncate BEFORE TRUNCATE ON decky_lifecycle FOR EACH STATEMENT
    EXECUTE FUNCTION decnet_reaper_refuse('only a terminal row may be deleted');

-- Hosts. A role that `hosts add` made belongs to one host, sees and moves only that host's rows, and can't
-- read this table. The tables' owner, and who is a member of it, is held by no policy.

-- A line with neither a role nor a moment at which it was seen is of a host that `hosts remove` took away: it
-- is forgotten when the last open row of the host has ended.
CREATE TABLE decnet_reaper_host (
    host_uuid varchar(64) COLLATE "C" PRIMARY KEY,
    role_name name UNIQUE,
    seen_at timestamptz,
    absent_since timestamptz,
    lost_at timestamptz,
    lost_logged boolean NOT NULL DEFAULT false,
    was_lost_at timestamptz
);
COMMENT ON COLUMN decnet_reaper_host.seen_at IS 'when a daemon of it last opened its session';
COMMENT ON COLUMN decnet_reaper_host.absent_since IS 'when no daemon of it was seen first';
COMMENT ON COLUMN decnet_reaper_host.lost_at IS 'when it was taken for lost; null again when it is back';
COMMENT ON COLUMN decnet_reaper_host.lost_logged IS 'whether a reaper has logged that it is lost';
COMMENT ON COLUMN decnet_reaper_host.was_lost_at IS 'the same of one that is back, until a reaper has logged it';

CREATE FUNCTION decnet_reaper_own_host() RETURNS varchar
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
    AS $$ SELECT host_uuid FROM decnet_reaper_host WHERE role_name = session_user $$;

-- 64 bits of SHA-256, so that nobody finds a name that takes another's lock
CREATE FUNCTION decnet_reaper_lock_key(kind text, VARIADIC names text[]) RETURNS bigint
    LANGUAGE sql IMMUTABLE
    AS $$ SELECT ('x' || left(encode(sha256(convert_to(
        'decnet-reaper ' || kind || ' ' || array_to_string(names, ' '), 'UTF8')), 'hex'), 16))::bit(64)::bigint $$;

CREATE VIEW decnet_reaper_held_lock AS
    SELECT (classid::bigint << 32) | objid::bigint AS key, pid FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
COMMENT ON VIEW decnet_reaper_held_lock IS 'the advisory locks of this database, and whose session holds them';

-- not STABLE: who holds a lock changes within a statement
CREATE FUNCTION decnet_reaper_is_present(host varchar) RETURNS boolean
    LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $$
    SELECT EXISTS (
        SELECT FROM decnet_reaper_held_lock WHERE key = (SELECT decnet_reaper_lock_key('host', host))
    ) $$;

CREATE FUNCTION decnet_reaper_is_lost(host varchar) RETURNS boolean
    LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $$
    SELECT NOT decnet_reaper_is_present(host)
        AND EXISTS (SELECT FROM decnet_reaper_host WHERE host_uuid = host AND lost_at IS NOT NULL)
    $$;

CREATE FUNCTION decnet_reaper_hold_presence(host varchar) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF coalesce(decnet_reaper_own_host(), host) <> host THEN
        RAISE EXCEPTION USING MESSAGE = 'this role belongs to another host', ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO decnet_reaper_host AS known (host_uuid, seen_at) VALUES (host, now())
        ON CONFLICT (host_uuid) DO UPDATE SET seen_at = now(), absent_since = NULL,
            lost_at = NULL, lost_logged = false,
            was_lost_at = CASE WHEN known.lost_logged THEN known.lost_at ELSE known.was_lost_at END;
    RETURN pg_try_advisory_lock_shared(decnet_reaper_lock_key('host', host));
END $$;

-- Who accepts a row on a decky comes after whoever accepted one before: until its transaction is over.
CREATE FUNCTION decnet_reaper_lock_deckies(hosts text[], deckies text[]) RETURNS void
    LANGUAGE plpgsql STRICT SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    own text := decnet_reaper_own_host();
BEGIN
    -- unnest() would fill up the shorter list with nulls, and a null leaves no trace in a key
    IF own IS NOT NULL AND (cardinality(hosts) <> cardinality(deckies)
            OR array_position(hosts, NULL) IS NOT NULL OR own <> ANY (hosts)) THEN
        RAISE EXCEPTION USING MESSAGE = 'this role belongs to another host', ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM pg_advisory_xact_lock(key) FROM (
        SELECT decnet_reaper_lock_key('decky', host, decky) AS key
        FROM unnest(hosts, deckies) AS wanted (host, decky) ORDER BY key
    ) AS keys;
END $$;

-- DELETE can't be granted by column, and with it a role could lock the whole table.
CREATE FUNCTION decnet_reaper_undeploy(its_host varchar, decky varchar) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF coalesce(decnet_reaper_own_host(), its_host) <> its_host THEN
        RAISE EXCEPTION USING MESSAGE = 'this role belongs to another host', ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM decky_deployed d WHERE d.host = its_host AND d.decky_name = decky;
END $$;

REVOKE EXECUTE ON FUNCTION decnet_reaper_own_host(), decnet_reaper_hold_presence(varchar),
    decnet_reaper_lock_deckies(text[], text[]), decnet_reaper_undeploy(varchar, varchar) FROM PUBLIC;

ALTER TABLE decky_lifecycle ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_host ON decky_lifecycle
    USING (host_uuid = (SELECT decnet_reaper_own_host()))
    WITH CHECK (host_uuid = (SELECT decnet_reaper_own_host()));
ALTER TABLE decky_deployed ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_host ON decky_deployed
    USING (host = (SELECT decnet_reaper_own_host()))
    WITH CHECK (host = (SELECT decnet_reaper_own_host()));

-- What others read of a host's rows is no longer than our own daemons make it (a document has a mebibyte).
CREATE POLICY error_is_short ON decky_lifecycle AS RESTRICTIVE FOR UPDATE
    USING (true) WITH CHECK (error IS NULL OR length(error) <= 2000);
CREATE POLICY request_is_short ON decky_lifecycle AS RESTRICTIVE FOR INSERT
    WITH CHECK (payload IS NULL OR length(payload::text) <= 4000000);
-- Ids follow each other (repo.repository.ids): none of a host's takes the others to their horizon.
CREATE POLICY id_is_near ON decky_lifecycle AS RESTRICTIVE FOR INSERT WITH CHECK (
    id !~ '^[0-9a-f]{8}-[0-9a-f]{4}-7'
    OR left(id, 8) < lpad(to_hex((extract(epoch FROM now()) * 1000 / 65536)::bigint + 24000000), 8, '0')
);
CREATE POLICY document_is_short ON decky_deployed AS RESTRICTIVE
    USING (true) WITH CHECK (length(document::text) + length(services::text) <= 4000000);
