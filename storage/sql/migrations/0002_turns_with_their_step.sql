-- Storing a user message writes fewer rows and fewer index entries, and evaluates fewer conditions.
--
-- A turn has one step under way at a time, so the turn's row holds it: one row and one index entry less for each message
-- that begins a turn. Of the steps that are over nothing is asked but what messages and tool calls tell.
--
-- `attempt` is the fencing token, raised by every claim of the step; `revision` is raised by every claim and every write of
-- the claimant, through all steps, so that a write whose answer was lost can be told from one that never happened.
ALTER TABLE turns RENAME TO turns_before;
ALTER INDEX turns_pkey RENAME TO turns_before_pkey;

CREATE TABLE turns (
    turn_id           uuid PRIMARY KEY,
    session_id        uuid NOT NULL,
    user_message_id   uuid NOT NULL,
    message_id        uuid NOT NULL,
    worker_id         uuid NOT NULL,
    created_at        timestamptz NOT NULL,
    finished_at       timestamptz,
    prompt_tokens     bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    step              integer NOT NULL DEFAULT 1,
    attempt           integer NOT NULL DEFAULT 1,
    revision          integer NOT NULL DEFAULT 0,
    cancel_requested  boolean NOT NULL DEFAULT false,
    agent_type        text NOT NULL,
    state             text NOT NULL DEFAULT 'running',
    step_state        text NOT NULL DEFAULT 'running',
    error_code        text,
    error_message     text,
    content           text NOT NULL DEFAULT '',
    reasoning         text NOT NULL DEFAULT ''
) WITH (fillfactor = 60);

INSERT INTO turns (turn_id, session_id, user_message_id, message_id, worker_id, created_at, finished_at, prompt_tokens,
                   completion_tokens, step, attempt, revision, cancel_requested, agent_type, state, step_state, error_code,
                   error_message, content, reasoning)
SELECT t.turn_id, t.session_id, t.user_message_id, s.message_id, s.worker_id, t.created_at, t.finished_at, t.prompt_tokens,
       t.completion_tokens, s.step, s.attempt, s.revision, t.cancel_requested, t.agent_type, t.state, s.state, t.error_code,
       t.error_message, s.content, s.reasoning
  FROM turns_before t
 CROSS JOIN LATERAL (SELECT * FROM steps WHERE steps.turn_id = t.turn_id ORDER BY steps.step DESC LIMIT 1) s;

-- Those that somebody has to run: few, whatever the table has grown to. The turns of a session are found by its messages.
CREATE INDEX turns_under_way ON turns (turn_id) WHERE finished_at IS NULL;

DROP TABLE steps;
DROP TABLE turns_before;

-- PostgreSQL parses a table's CHECKs anew for every statement that writes to it, which is a twentieth of such a statement
-- for each. These said what the statements themselves make sure of, and what the tests look at after each change.
ALTER TABLE sessions DROP CONSTRAINT sessions_seq_counts_up, DROP CONSTRAINT sessions_queue_is_bounded;
ALTER TABLE messages DROP CONSTRAINT messages_have_a_role;
