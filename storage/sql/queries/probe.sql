-- name: look_at_database
-- What an operator should know of a database before a server works on it; it changes nothing. `room` is how many
-- connections those who are no superusers may have, `others` how many such are there that are none of ours.
SELECT current_user::text AS "user",
       current_database()::text AS database,
       current_setting('server_encoding') AS encoding,
       current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean AS read_only,
       least(
           current_setting('max_connections')::int
             - current_setting('superuser_reserved_connections')::int
             - coalesce(current_setting('reserved_connections', true)::int, 0),
           (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
           (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())
       ) AS room,
       (SELECT count(*)::int
          FROM pg_stat_get_activity(NULL)
         WHERE backend_type = 'client backend'
           AND application_name NOT IN ('parley', 'parley check')) AS others
