-- Turns that wait for people and for clients: calls with executors and leases, approvals and their rules, agents that hand
-- over or ask each other, who is present, who may join a session, what everything cost, and who decided what.

-- `news` counts what happened to the turn's calls from outside (a result, a decision, a deadline): a run parks its turn only
-- if there is none that it has not seen. A waiting turn (`state`) belongs to no worker; whoever brings the news claims it.
-- `parent_call` is the call of another turn that this one answers, `depth` how many such calls it stands below;
-- `switches` counts the agents it was handed to.
ALTER TABLE turns
    ADD COLUMN news        integer NOT NULL DEFAULT 0,
    ADD COLUMN switches    integer NOT NULL DEFAULT 0,
    ADD COLUMN depth       integer NOT NULL DEFAULT 0,
    ADD COLUMN parent_call uuid,
    ADD COLUMN cost        numeric;

-- Those that somebody has to run; of those that wait there may be any number.
DROP INDEX turns_under_way;
CREATE INDEX turns_under_way ON turns (turn_id) WHERE finished_at IS NULL AND state <> 'waiting';

-- A message of a turn that answers a call belongs to that turn alone (`thread`), not to the session's conversation.
ALTER TABLE messages ADD COLUMN thread uuid;
CREATE INDEX messages_by_thread ON messages (thread, seq) WHERE thread IS NOT NULL;

-- A message that waits for the running turn's next step (`steer`), or that made it end (`interrupt`).
ALTER TABLE queue ADD COLUMN on_busy text;

-- Calls. `arguments` is what the agent wrote, `final_arguments` what a person made of it. `executor` is 'server', 'client'
-- or 'agent' (another turn, `child_turn`). `client_id` has the call now, `executors` had it at some time. What has to happen
-- by itself happens at `due_at`: the call fails at its `deadline`, and is taken from a client that left at `release_at`.
ALTER TABLE tool_calls DROP CONSTRAINT tool_calls_have_a_state, DROP CONSTRAINT tool_calls_have_an_executor;
UPDATE tool_calls
   SET state = CASE WHEN state = 'pending' THEN 'ready' WHEN state = 'running' THEN 'running' WHEN failed THEN 'failed' ELSE 'completed' END;
ALTER TABLE tool_calls
    ALTER COLUMN state SET DEFAULT 'ready',
    DROP COLUMN failed,
    ADD COLUMN final_arguments text,
    ADD COLUMN read_only       boolean NOT NULL DEFAULT false,
    ADD COLUMN independent     boolean NOT NULL DEFAULT false,
    ADD COLUMN client_id       text,
    ADD COLUMN executors       text[] NOT NULL DEFAULT '{}',
    ADD COLUMN child_turn      uuid,
    ADD COLUMN deadline        timestamptz,
    ADD COLUMN release_at      timestamptz,
    ADD COLUMN due_at          timestamptz GENERATED ALWAYS AS (LEAST(deadline, release_at)) STORED;
CREATE INDEX tool_calls_due ON tool_calls (due_at) WHERE state IN ('ready', 'running') AND due_at IS NOT NULL;
CREATE INDEX tool_calls_open ON tool_calls (session_id) WHERE finished_at IS NULL;
CREATE INDEX tool_calls_at_clients ON tool_calls (session_id, client_id)
 WHERE finished_at IS NULL AND client_id IS NOT NULL AND release_at IS NULL;

-- What a person has to decide, and did. `state` is a word of the lifecycle `approval`; `due_at` is when somebody has to look:
-- first to warn, then to let it expire. What will have run stands in the call.
CREATE TABLE approvals (
    approval_id       uuid PRIMARY KEY,
    session_id        uuid NOT NULL,
    turn_id           uuid NOT NULL,
    call_id           uuid NOT NULL,
    owner             text NOT NULL,
    agent_type        text NOT NULL,
    name              text NOT NULL,
    arguments_hash    bytea NOT NULL,
    allowed_decisions text[] NOT NULL,
    rule              text,
    reason            text,
    parameters        bytea,
    state             text NOT NULL DEFAULT 'pending',
    created_at        timestamptz NOT NULL,
    expires_at        timestamptz,
    due_at            timestamptz,
    decided_at        timestamptz,
    decided_by        text,
    client_id         text,
    feedback          text,
    CONSTRAINT approvals_are_one_a_call UNIQUE (call_id)
);
CREATE INDEX approvals_open ON approvals (session_id) WHERE state = 'pending';
CREATE INDEX approvals_open_by_owner ON approvals (owner, approval_id) WHERE state = 'pending';
CREATE INDEX approvals_due ON approvals (due_at) WHERE state = 'pending' AND due_at IS NOT NULL;
CREATE INDEX approvals_by_session ON approvals (session_id, approval_id);

-- Standing permissions and refusals that people made. `arguments` maps an argument to a glob, as JSON.
CREATE TABLE approval_rules (
    rule_id    uuid PRIMARY KEY,
    owner      text NOT NULL,
    session_id uuid,
    scope      text NOT NULL,
    tool       text NOT NULL,
    arguments  bytea,
    effect     text NOT NULL,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    call_id    uuid,
    revoked_at timestamptz,
    revoked_by text,
    CONSTRAINT approval_rules_have_a_scope CHECK (scope IN ('session', 'user') AND (scope = 'session') = (session_id IS NOT NULL)),
    CONSTRAINT approval_rules_have_an_effect CHECK (effect IN ('allow', 'deny'))
);
CREATE INDEX approval_rules_in_force ON approval_rules (owner, rule_id) WHERE revoked_at IS NULL;
CREATE INDEX approval_rules_by_session ON approval_rules (session_id) WHERE session_id IS NOT NULL;

-- Who did what that somebody may ask about later; it outlives its session. `arguments` were asked for, `executed` ran.
CREATE TABLE audit (
    audit_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL,
    owner      text NOT NULL,
    session_id uuid,
    event_type text NOT NULL,
    user_id    text,
    client_id  text,
    transport  text,
    turn_id    uuid,
    call_id    uuid,
    tool       text,
    decision   text,
    cause      text,
    arguments  text,
    executed   text,
    feedback   text,
    rule       text
);
CREATE INDEX audit_by_owner ON audit (owner, audit_id);
CREATE INDEX audit_by_session ON audit (session_id, audit_id);

-- Which agent gave a session to which, and why.
CREATE TABLE agent_switches (
    session_id  uuid NOT NULL,
    seq         bigint NOT NULL,
    from_agent  text NOT NULL,
    to_agent    text NOT NULL,
    reason      text,
    confidence  double precision,
    cause       text NOT NULL,
    turn_id     uuid,
    user_id     text,
    switched_at timestamptz NOT NULL,
    PRIMARY KEY (session_id, seq)
);
CREATE INDEX agent_switches_by_time ON agent_switches (switched_at);

-- One row for each step of an agent that came to its end, however it did: what it took. It outlives its session.
CREATE TABLE requests (
    turn_id           uuid NOT NULL,
    step              integer NOT NULL,
    attempt           integer NOT NULL,
    session_id        uuid NOT NULL,
    owner             text NOT NULL,
    agent_type        text NOT NULL,
    model             text,
    started_at        timestamptz NOT NULL,
    duration_ms       bigint NOT NULL,
    prompt_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cost              numeric,
    tools             integer NOT NULL,
    finish_reason     text NOT NULL,
    error_code        text,
    PRIMARY KEY (turn_id, step, attempt)
);
CREATE INDEX requests_by_session ON requests (session_id, started_at);
CREATE INDEX requests_by_owner ON requests (owner, started_at);

-- Who is on which session, at which process, with which tools (JSON, and their names). True only now, so a crash of the database
-- may empty it. Who left (`left_at`) keeps name and tools for a while, in case it only reconnects, maybe to another process.
CREATE UNLOGGED TABLE presence (
    session_id uuid NOT NULL,
    client_id  text NOT NULL,
    worker_id  uuid NOT NULL,
    user_id    text NOT NULL,
    role       text NOT NULL,
    transport  text NOT NULL,
    joined_at  timestamptz NOT NULL,
    left_at    timestamptz,
    tools_at   timestamptz,
    tools      bytea,
    names      text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (session_id, client_id, worker_id)
);
CREATE INDEX presence_by_worker ON presence (worker_id, left_at);
CREATE INDEX presence_left ON presence (left_at) WHERE left_at IS NOT NULL;

-- Users who may use a session that is not theirs.
CREATE TABLE session_members (
    session_id uuid NOT NULL REFERENCES sessions,
    user_id    text NOT NULL,
    role       text NOT NULL,
    added_by   text NOT NULL,
    added_at   timestamptz NOT NULL,
    PRIMARY KEY (session_id, user_id),
    CONSTRAINT session_members_have_a_role CHECK (role IN ('controller', 'observer'))
);
CREATE INDEX session_members_by_user ON session_members (user_id, session_id);

-- One-time tickets for what cannot send a header. Only the ticket's hash is kept. What is opened with it ends at `until`.
CREATE TABLE tickets (
    digest     bytea PRIMARY KEY,
    user_id    text NOT NULL,
    scope      text NOT NULL,
    session_id uuid,
    origin     text,
    expires_at timestamptz NOT NULL,
    until      timestamptz
);
CREATE INDEX tickets_by_user ON tickets (user_id, expires_at);
CREATE INDEX tickets_by_age ON tickets (expires_at);

-- What browsers' login cookies stand for. Only the cookie's hash is kept, and which token it was made of.
CREATE TABLE logins (
    digest     bytea PRIMARY KEY,
    user_id    text NOT NULL,
    scope      text NOT NULL,
    credential bytea,
    expires_at timestamptz NOT NULL
);
CREATE INDEX logins_by_user ON logins (user_id, expires_at);
CREATE INDEX logins_by_age ON logins (expires_at);

-- Projects: a user's sessions and agents put together under a name.
CREATE TABLE projects (
    project_id  uuid PRIMARY KEY,
    owner       text NOT NULL,
    alias       text,
    name        text NOT NULL,
    description text,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    deleted_at  timestamptz,
    CONSTRAINT projects_have_one_alias UNIQUE (owner, alias)
);
CREATE INDEX projects_by_owner ON projects (owner, project_id);

CREATE TABLE project_agents (
    project_id  uuid NOT NULL REFERENCES projects,
    agent_type  text NOT NULL,
    definition  bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (project_id, agent_type)
);

-- The project of a session, the thread of an agent that it is, and the session and event that it was forked from.
ALTER TABLE sessions
    ADD COLUMN project_id  uuid,
    ADD COLUMN thread_agent text,
    ADD COLUMN forked_from uuid,
    ADD COLUMN forked_at   bigint;
CREATE INDEX sessions_by_project ON sessions (project_id, session_id) WHERE project_id IS NOT NULL;
