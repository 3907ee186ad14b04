-- Sessions, their log, their commands, their turns.
--
-- No foreign key points at sessions from the tables of the hot path: each would add a look-up and a lock on the session row
-- to every insert, and all writers hold that row's lock already. Sessions are never removed, only emptied (tombstones).

-- A session: one conversation of one owner. `seq` numbers its durable events without a gap; who holds the row's lock numbers.
-- Nothing that every message changes is indexed, so that its updates stay heap-only (fillfactor leaves them the room).
CREATE TABLE sessions (
    session_id    uuid PRIMARY KEY,
    owner         text NOT NULL,
    epoch         text NOT NULL,
    seq           bigint NOT NULL DEFAULT 0,
    title         text,
    description   text,
    current_agent text NOT NULL,
    active_turn   uuid,
    queued        integer NOT NULL DEFAULT 0,
    message_count bigint NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL,
    last_activity timestamptz NOT NULL,
    deleted_at    timestamptz,
    CONSTRAINT sessions_seq_counts_up CHECK (seq >= 0),
    CONSTRAINT sessions_queue_is_bounded CHECK (queued >= 0)
) WITH (fillfactor = 60);
CREATE INDEX sessions_by_owner ON sessions (owner, session_id);

-- The caller's own name for a session, unique for each owner.
CREATE TABLE session_aliases (
    owner      text NOT NULL,
    alias      text NOT NULL,
    session_id uuid NOT NULL REFERENCES sessions,
    CONSTRAINT session_aliases_are_unique PRIMARY KEY (owner, alias)
);
CREATE INDEX session_aliases_by_session ON session_aliases (session_id);

-- The log. `body` is the payload exactly as it was encoded, so that a replay is byte for byte the first delivery.
CREATE TABLE events (
    session_id uuid NOT NULL,
    seq        bigint NOT NULL,
    event_type text NOT NULL,
    created_at timestamptz NOT NULL,
    body       bytea NOT NULL,
    CONSTRAINT events_are_numbered_once PRIMARY KEY (session_id, seq)
);

-- Commands that took effect, with what their sender was told: a repeat gets the same answer.
CREATE TABLE commands (
    session_id uuid NOT NULL,
    command_id text NOT NULL,
    body_hash  bytea NOT NULL,
    first_seq  bigint NOT NULL,
    status     text NOT NULL,
    message_id uuid,
    turn_id    uuid,
    client_id  text,
    user_id    text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT commands_take_effect_once PRIMARY KEY (session_id, command_id)
);

-- The last number each client gave one of its commands, where it numbers them.
CREATE TABLE command_numbers (
    session_id uuid NOT NULL,
    client_id  text NOT NULL,
    n          bigint NOT NULL,
    CONSTRAINT command_numbers_count_up PRIMARY KEY (session_id, client_id)
);

-- What the model is shown and people read. `seq` is that of the event that announced the message.
CREATE TABLE messages (
    message_id    uuid PRIMARY KEY,
    session_id    uuid NOT NULL,
    seq           bigint NOT NULL,
    turn_id       uuid,
    role          text NOT NULL,
    content       text NOT NULL,
    reasoning     text,
    name          text,
    call_id       uuid,
    tool_calls    bytea,
    agent_type    text,
    finish_reason text,
    created_at    timestamptz NOT NULL,
    CONSTRAINT messages_have_a_role CHECK (role IN ('user', 'assistant', 'tool', 'system')),
    CONSTRAINT messages_are_ordered UNIQUE (session_id, seq)
);

-- User messages that wait for the running turn to end. `position` starts as the seq of the event that announced the entry.
CREATE TABLE queue (
    session_id uuid NOT NULL,
    message_id uuid NOT NULL,
    position   bigint NOT NULL,
    content    text NOT NULL,
    agent_type text,
    command_id text NOT NULL,
    client_id  text,
    user_id    text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (session_id, message_id)
);
CREATE INDEX queue_in_order ON queue (session_id, position);

-- A turn: all an agent does about one user message.
CREATE TABLE turns (
    turn_id           uuid PRIMARY KEY,
    session_id        uuid NOT NULL,
    user_message_id   uuid NOT NULL,
    agent_type        text NOT NULL,
    state             text NOT NULL,
    cancel_requested  boolean NOT NULL DEFAULT false,
    error_code        text,
    error_message     text,
    prompt_tokens     bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL,
    finished_at       timestamptz,
    CONSTRAINT turns_have_a_state CHECK (state IN ('running', 'waiting', 'completed', 'cancelled', 'failed', 'interrupted'))
);
CREATE INDEX turns_by_session ON turns (session_id, turn_id);

-- A step: one call of the agent, claimed by one worker. `attempt` is the fencing token, raised by every claim; `revision` is
-- raised by every write of the claimant, so that a write whose answer was lost can be told from one that never happened.
CREATE TABLE steps (
    turn_id    uuid NOT NULL,
    step       integer NOT NULL,
    session_id uuid NOT NULL,
    message_id uuid NOT NULL,
    state      text NOT NULL,
    worker_id  uuid NOT NULL,
    attempt    integer NOT NULL DEFAULT 1,
    revision   integer NOT NULL DEFAULT 0,
    content    text NOT NULL DEFAULT '',
    reasoning  text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    PRIMARY KEY (turn_id, step),
    CONSTRAINT steps_have_a_state CHECK (state IN ('running', 'tools', 'done'))
) WITH (fillfactor = 60);
CREATE INDEX steps_not_done ON steps (turn_id) WHERE state <> 'done';

-- Calls of tools. Their arguments are the text that the agent wrote; their results are messages.
CREATE TABLE tool_calls (
    call_id     uuid PRIMARY KEY,
    session_id  uuid NOT NULL,
    turn_id     uuid NOT NULL,
    step        integer NOT NULL,
    ordinal     integer NOT NULL,
    name        text NOT NULL,
    arguments   text NOT NULL,
    executor    text NOT NULL,
    state       text NOT NULL,
    failed      boolean,
    created_at  timestamptz NOT NULL,
    started_at  timestamptz,
    finished_at timestamptz,
    CONSTRAINT tool_calls_are_ordered UNIQUE (turn_id, step, ordinal),
    CONSTRAINT tool_calls_have_an_executor CHECK (executor IN ('server', 'client')),
    CONSTRAINT tool_calls_have_a_state CHECK (state IN ('pending', 'running', 'done'))
);
CREATE INDEX tool_calls_by_session ON tool_calls (session_id);

-- Processes that run turns. One whose lease has ended (by the database's clock) has lost its steps to whoever claims them.
CREATE TABLE workers (
    worker_id   uuid PRIMARY KEY,
    host        text NOT NULL,
    process     text NOT NULL,
    lease_until timestamptz NOT NULL
);
