-- The first schema: what one published session needs, from a close to an order.
-- Dates are exchange sessions; prices are in the book's currency; mu, sigma, quantiles and es025 are log returns in percent.

-- Calendar ------------------------------------------------------------------------------------------------------
CREATE TABLE trading_session (
    exchange     text        NOT NULL,
    session_date date        NOT NULL,
    opens_at     timestamptz NOT NULL,
    closes_at    timestamptz NOT NULL,
    runs_after   timestamptz NOT NULL,
    cutoff       timestamptz NOT NULL,
    PRIMARY KEY (exchange, session_date)
);
COMMENT ON COLUMN trading_session.cutoff IS 'a run for the session reads only rows known at or before this moment';

-- Market data ---------------------------------------------------------------------------------------------------
CREATE TABLE ingest_batch (
    batch_id      integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source        text        NOT NULL,
    location      text        NOT NULL,
    content_hash  text        NOT NULL,
    first_session date        NOT NULL,
    last_session  date        NOT NULL,
    bars          bigint      NOT NULL,
    basis         text        NOT NULL CHECK (basis IN ('observed', 'assumed')),
    loaded_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    conflicts     text[]      NOT NULL DEFAULT '{}',
    UNIQUE (source, content_hash)
);
COMMENT ON COLUMN ingest_batch.conflicts IS 'symbols given twice with different values in one session; their bars are stored without values';
COMMENT ON COLUMN ingest_batch.basis IS 'observed: known_at is our clock at loading; assumed: history bought in bulk, known_at is close plus delay';

CREATE TABLE instrument (
    instrument_id integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source        text        NOT NULL,
    symbol        text        NOT NULL CHECK (symbol <> ''),
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (source, symbol)
);

-- Written by COPY in key order; no row-level foreign key (it would cost four fifths of the speed).
CREATE TABLE market_bar (
    session_date  date             NOT NULL,
    instrument_id integer          NOT NULL,
    known_at      timestamptz      NOT NULL,
    batch_id      integer          NOT NULL,
    open          double precision,
    high          double precision,
    low           double precision,
    close         double precision,
    volume        double precision,
    PRIMARY KEY (session_date, instrument_id, known_at)
);

CREATE TABLE snapshot (
    snapshot_id    integer            GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_date   date               NOT NULL,
    source         text               NOT NULL,
    cutoff         timestamptz        NOT NULL,
    content_hash   text               NOT NULL,
    sessions       date[]             NOT NULL,
    instruments    integer[]          NOT NULL,
    market_return  double precision[] NOT NULL,
    market_rms     double precision[] NOT NULL,
    bars           bigint             NOT NULL,
    assumed_bars   bigint             NOT NULL,
    last_loaded_at timestamptz,
    created_at     timestamptz        NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (session_date, source, content_hash)
);
COMMENT ON TABLE snapshot IS 'the immutable panel (instruments x sessions of closes) that one run reads, by its hash';

-- Models --------------------------------------------------------------------------------------------------------
CREATE TABLE model_version (
    vintage_id      integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text        NOT NULL,
    architecture    text        NOT NULL,
    trained_through date        NOT NULL,
    weights_sha256  text        NOT NULL UNIQUE,
    card            jsonb       NOT NULL,
    registered_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE model_assignment (
    assignment_id  integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    vintage_id     integer     NOT NULL REFERENCES model_version,
    effective_from date        NOT NULL,
    decided_at     timestamptz NOT NULL,
    basis          text        NOT NULL CHECK (basis IN ('observed', 'assumed')),
    decided_by     text        NOT NULL,
    reason         text        NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (effective_from, vintage_id)
);

CREATE TABLE batch_profile (
    profile_id            bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at            timestamptz      NOT NULL DEFAULT now(),
    profile_key           text             NOT NULL,
    model                 text             NOT NULL,
    device                text             NOT NULL,
    precision             text             NOT NULL,
    input_shape           text             NOT NULL,
    versions              jsonb            NOT NULL,
    batch_size            integer          NOT NULL,
    throughput            double precision NOT NULL,
    latency_ms_per_batch  double precision NOT NULL,
    latency_ms_per_sample double precision NOT NULL,
    memory_bytes          bigint,
    reason                text             NOT NULL,
    curve                 jsonb            NOT NULL
);
CREATE INDEX batch_profile_key ON batch_profile (profile_key, profile_id DESC);

-- Runs ----------------------------------------------------------------------------------------------------------
CREATE TABLE run (
    run_id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange           text        NOT NULL,
    session_date       date        NOT NULL,
    snapshot_id        integer     NOT NULL REFERENCES snapshot,
    vintage_id         integer     NOT NULL REFERENCES model_version,
    configuration_hash text        NOT NULL,
    configuration      jsonb       NOT NULL,
    state              text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'audited', 'refused')),
    risk_state         text        NOT NULL DEFAULT 'open' CHECK (risk_state IN ('open', 'audited', 'refused')),
    refusal            text,
    door               text        NOT NULL,
    dag_run_id         text        NOT NULL,
    lineage            jsonb       NOT NULL,
    opened_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at         timestamptz,
    UNIQUE (session_date, snapshot_id, vintage_id, configuration_hash)
);
COMMENT ON TABLE run IS 'identity: session, snapshot, vintage, configuration; code, lock file and calendar are lineage';

CREATE TABLE run_shard (
    run_id         bigint  NOT NULL REFERENCES run,
    shard          integer NOT NULL,
    first_position integer NOT NULL,
    last_position  integer NOT NULL,
    done_at        timestamptz,
    predictions    integer,
    quarantined    integer,
    execution      jsonb,
    PRIMARY KEY (run_id, shard),
    CHECK (first_position >= 0 AND last_position > first_position)
);
COMMENT ON COLUMN run_shard.last_position IS 'exclusive, into snapshot.instruments';
COMMENT ON COLUMN run_shard.execution IS 'lineage of the scoring: device, precision, batch size, profile, throughput and latency';

-- One partition a month, made when first needed by ensure_prediction_partition.
CREATE TABLE prediction (
    session_date  date    NOT NULL,
    run_id        bigint  NOT NULL,
    instrument_id integer NOT NULL,
    mu            real    NOT NULL,
    sigma         real    NOT NULL,
    q01           real    NOT NULL,
    q025          real    NOT NULL,
    q05           real    NOT NULL,
    q50           real    NOT NULL,
    q95           real    NOT NULL,
    es025         real    NOT NULL,
    PRIMARY KEY (session_date, run_id, instrument_id)
) PARTITION BY RANGE (session_date);

CREATE FUNCTION ensure_prediction_partition(day date) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    first date := date_trunc('month', day)::date;
    name  text := format('prediction_%s', to_char(first, 'YYYY_MM'));
BEGIN
    IF to_regclass(name) IS NULL THEN
        PERFORM pg_advisory_xact_lock(hashtext('prediction partitions'));
        EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF prediction FOR VALUES FROM (%L) TO (%L)',
                       name, first, (first + interval '1 month')::date);
    END IF;
    RETURN name;
END $$;

CREATE TABLE quarantine (
    run_id        bigint  NOT NULL REFERENCES run,
    instrument_id integer NOT NULL REFERENCES instrument,
    reason        text    NOT NULL,
    sentence      text    NOT NULL,
    PRIMARY KEY (run_id, instrument_id, reason)
);

CREATE TABLE audit_check (
    run_id     bigint      NOT NULL REFERENCES run,
    stage      text        NOT NULL CHECK (stage IN ('inputs', 'predictions', 'risk')),
    name       text        NOT NULL,
    subject    text        NOT NULL DEFAULT '',
    observed   double precision,
    threshold  double precision,
    severity   text        NOT NULL CHECK (severity IN ('block', 'warn')),
    passed     boolean     NOT NULL,
    sentence   text        NOT NULL,
    checked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, stage, name, subject)
);

-- Publication ---------------------------------------------------------------------------------------------------
CREATE TABLE publication (
    publication_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           text        NOT NULL CHECK (kind IN ('forecast', 'risk')),
    exchange       text        NOT NULL,
    session_date   date        NOT NULL,
    revision       integer     NOT NULL CHECK (revision > 0),
    run_id         bigint      NOT NULL REFERENCES run,
    published_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_by   text        NOT NULL DEFAULT current_user,
    UNIQUE (kind, exchange, session_date, revision),
    UNIQUE (kind, run_id)
);
COMMENT ON TABLE publication IS 'append-only; readers see the highest revision of a session';

CREATE FUNCTION guard_publication() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    the_run run%ROWTYPE;
    undone  bigint;
    checks  bigint;
    failed  text;
BEGIN
    SELECT * INTO the_run FROM run WHERE run_id = NEW.run_id FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run % does not exist; only an audited run can be published', NEW.run_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF the_run.session_date <> NEW.session_date OR the_run.exchange <> NEW.exchange THEN
        RAISE EXCEPTION 'run % is of session % of %, not of % of %', NEW.run_id, the_run.session_date,
            the_run.exchange, NEW.session_date, NEW.exchange USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (NEW.kind = 'forecast' AND the_run.state <> 'audited')
       OR (NEW.kind = 'risk' AND the_run.risk_state <> 'audited') THEN
        RAISE EXCEPTION 'run % is not audited for its % (state %); its checks must all be run and stored first',
            NEW.run_id, NEW.kind, CASE NEW.kind WHEN 'risk' THEN the_run.risk_state ELSE the_run.state END
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    SELECT count(*), string_agg(sentence, '; ') FILTER (WHERE severity = 'block' AND NOT passed)
        INTO checks, failed
        FROM audit_check
        WHERE run_id = NEW.run_id AND (stage = 'risk') = (NEW.kind = 'risk');
    IF checks = 0 THEN
        RAISE EXCEPTION 'run % has no stored check of its %; nothing unaudited is published', NEW.run_id, NEW.kind
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF failed IS NOT NULL THEN
        RAISE EXCEPTION 'run % failed a blocking check: %', NEW.run_id, failed
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.kind = 'forecast' THEN
        SELECT count(*) FILTER (WHERE done_at IS NULL) + (count(*) = 0)::int INTO undone
            FROM run_shard WHERE run_id = NEW.run_id;
        IF undone > 0 THEN
            RAISE EXCEPTION 'run % has shards that are not scored', NEW.run_id
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    ELSIF NOT EXISTS (SELECT FROM publication WHERE kind = 'forecast' AND run_id = NEW.run_id) THEN
        RAISE EXCEPTION 'the forecasts of run % are not published; its risk can''t be', NEW.run_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER publication_is_audited BEFORE INSERT ON publication
    FOR EACH ROW EXECUTE FUNCTION guard_publication();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused; publish a new revision instead', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER publication_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON publication
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Books and risk ------------------------------------------------------------------------------------------------
CREATE TABLE book (
    book_id    integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text        NOT NULL UNIQUE,
    kind       text        NOT NULL CHECK (kind IN ('equal_weight', 'inverse_volatility')),
    currency   text        NOT NULL,
    capital    double precision NOT NULL CHECK (capital > 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE risk_measure (
    run_id     bigint           NOT NULL REFERENCES run,
    book_id    integer          NOT NULL REFERENCES book,
    measure    text             NOT NULL CHECK (measure IN ('VaR', 'ES')),
    confidence double precision NOT NULL CHECK (confidence > 0.5 AND confidence < 1),
    horizon    integer          NOT NULL CHECK (horizon > 0),
    value      double precision NOT NULL,
    book_value double precision NOT NULL,
    scenarios  integer          NOT NULL,
    basis      text             NOT NULL,
    PRIMARY KEY (run_id, book_id, measure, confidence, horizon)
);
COMMENT ON COLUMN risk_measure.value IS 'a loss in the book''s currency, positive when money is lost';

-- Rebalance -----------------------------------------------------------------------------------------------------
CREATE TABLE rebalance (
    rebalance_id integer          GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    book_id      integer          NOT NULL REFERENCES book,
    exchange     text             NOT NULL,
    session_date date             NOT NULL,
    run_id       bigint           NOT NULL REFERENCES run,
    previous_id  integer          REFERENCES rebalance,
    state        text             NOT NULL CHECK (state IN ('published', 'refused')),
    reason       text             NOT NULL,
    book_value   double precision,
    cash_before  double precision,
    cash_after   double precision CHECK (cash_after >= 0),
    dag_run_id   text             NOT NULL,
    published_at timestamptz      NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (book_id, exchange, session_date)
);

CREATE TABLE target_weight (
    rebalance_id  integer          NOT NULL REFERENCES rebalance,
    instrument_id integer          NOT NULL REFERENCES instrument,
    weight        double precision NOT NULL CHECK (weight >= 0),
    PRIMARY KEY (rebalance_id, instrument_id)
);

CREATE TABLE order_line (
    rebalance_id  integer          NOT NULL REFERENCES rebalance,
    instrument_id integer          NOT NULL REFERENCES instrument,
    side          text             NOT NULL CHECK (side IN ('buy', 'sell')),
    quantity      bigint           NOT NULL CHECK (quantity > 0),
    price         double precision NOT NULL CHECK (price > 0),
    reason        text             NOT NULL,
    PRIMARY KEY (rebalance_id, instrument_id)
);

-- Holdings after the session's orders, taken as filled at that session's close.
CREATE TABLE position (
    book_id       integer          NOT NULL REFERENCES book,
    session_date  date             NOT NULL,
    instrument_id integer          NOT NULL REFERENCES instrument,
    rebalance_id  integer          NOT NULL REFERENCES rebalance,
    quantity      bigint           NOT NULL,
    price         double precision NOT NULL,
    PRIMARY KEY (book_id, session_date, instrument_id)
);

-- What readers see ----------------------------------------------------------------------------------------------
CREATE VIEW publication_interval AS
    SELECT *, published_at AS valid_from,
           lead(published_at) OVER (PARTITION BY kind, exchange, session_date ORDER BY revision) AS valid_to
    FROM publication;
COMMENT ON VIEW publication_interval IS 'valid_to is null for the revision that readers see now';

CREATE VIEW prediction_published AS
    SELECT p.session_date, i.symbol, p.mu, p.sigma, p.q01, p.q025, p.q05, p.q50, p.q95, p.es025,
           p.run_id, p.instrument_id, b.exchange, b.revision, b.valid_from, b.valid_to
    FROM publication_interval b
    JOIN prediction p ON p.run_id = b.run_id AND p.session_date = b.session_date
    JOIN instrument i USING (instrument_id)
    WHERE b.kind = 'forecast';

CREATE VIEW prediction_current AS
    SELECT session_date, symbol, mu, sigma, q01, q025, q05, q50, q95, es025, run_id, instrument_id, exchange,
           revision, valid_from AS published_at
    FROM prediction_published WHERE valid_to IS NULL;

CREATE VIEW risk_current AS
    SELECT b.session_date, k.name AS book, m.measure, m.confidence, m.horizon, m.value, m.book_value, k.currency,
           m.scenarios, m.basis, m.run_id, b.exchange, b.revision, b.valid_from AS published_at
    FROM publication_interval b
    JOIN risk_measure m ON m.run_id = b.run_id
    JOIN book k USING (book_id)
    WHERE b.kind = 'risk' AND b.valid_to IS NULL;

CREATE VIEW publication_gap AS
    WITH begun AS (
        SELECT exchange, min(session_date) AS first_session FROM run GROUP BY exchange
    )
    SELECT s.exchange, s.session_date, s.runs_after, missing.kind,
           CASE WHEN r.run_id IS NULL THEN 'missing'
                WHEN (CASE missing.kind WHEN 'risk' THEN r.risk_state ELSE r.state END) = 'refused' THEN 'refused'
                ELSE 'unfinished' END AS state,
           r.run_id, r.refusal
    FROM trading_session s
    JOIN begun g ON g.exchange = s.exchange AND s.session_date >= g.first_session
    CROSS JOIN (VALUES ('forecast'), ('risk')) AS missing (kind)
    LEFT JOIN LATERAL (
        SELECT run_id, state, risk_state, refusal FROM run
        WHERE run.exchange = s.exchange AND run.session_date = s.session_date ORDER BY run_id DESC LIMIT 1
    ) r ON true
    WHERE s.runs_after <= now()
      AND NOT EXISTS (SELECT FROM publication p
                      WHERE p.exchange = s.exchange AND p.session_date = s.session_date AND p.kind = missing.kind);
COMMENT ON VIEW publication_gap IS 'sessions that ought to be published and are not, from the first session ever run';
