package pgdb

// FileSettingFault is the SQL condition that a row f of pg_file_settings tells of an error with which the server would not
// start. Two of its errors are none, and PostgreSQL words neither in another language:
//
//   - A setting that only a restart changes has left all files: the row has no name.
//   - "setting could not be applied" stands for a value that waits for a restart, and for one that is not allowed. Only the
//     first has this session's pg_settings mark the setting (ProcessConfigFileInternal and set_config_option, seen on 14 to
//     18); it does so while pg_file_settings is read, that is, before the condition is looked at. The mark of an earlier
//     value stays: of a setting that has been waiting already, a value that is not allowed is not told.
//
// The settings named at the end depend on the database whose session asks, and are valid where their objects are.
//
// Roles that don't see every setting (pg_read_all_settings) would take some that wait for faults.
const FileSettingFault = `(f.error IS NOT NULL
  AND f.error !~ '^parameter ".*" cannot be changed without restarting the server$'
  AND NOT (f.error = 'setting could not be applied' AND (
    EXISTS (SELECT FROM pg_settings p WHERE lower(p.name) = lower(f.name) AND p.context = 'postmaster' AND p.pending_restart)
    OR lower(f.name) IN ('default_text_search_config', 'default_tablespace', 'temp_tablespaces', 'default_table_access_method'))))`
