/*
** The C entry points of guildlite: of guildlite.so, a SQLite loadable extension, and of
** libguildlite.a, the same for programs that link it.
**
** Either way it registers the VFS "guildlite" as the default and brings the SQL functions and
** tables (README.md lists them) to every connection that is opened from then on. Nothing is
** replicated until asked for, by replication_start() or by GUILDLITE_URL. All else goes through the
** program's own connections, as SQL:
**
**     char *error = 0;
**     if( guildlite_register(&error)!=SQLITE_OK ) ...;             // once, before the databases
**     sqlite3_open("app.db", &db);
**     sqlite3_exec(db, "select replication_start('file:///var/backups/app')", 0, 0, &error);
**     sqlite3_exec(db, "insert into ...", 0, 0, &error);
**     sqlite3_exec(db, "select replication_sync(5000)", 0, 0, &error);
**
** Shapes and units: positions are TEXT of 51 characters, or NULL where there is none; durations are
** INTEGER milliseconds, moments are TEXT in UTC, sizes are INTEGER bytes; no INTEGER exceeds
** 2^53 - 1; urls are TEXT, absolute and percent-encoded.
** Errors: SQLite's own codes; the message opens with a tag that does not change between versions
** ("STORE_DENIED: ..."). A COMMIT carries only a code; select replication_error() has the rest.
** Threads: any, under SQLite's own rules for a connection. Uploads run in threads of guildlite's,
** which never touch a connection. After fork() the child may go on without replication.
** Exit: the last sqlite3_close() of a database and a normal exit() flush for a bounded time; a
** signal's default action, abort() and _exit() do not, and what they left ships at the next open.
**
** Needs SQLite 3.32 or newer, not compiled with SQLITE_THREADSAFE=0.
*/
#ifndef GUILDLITE_H
#define GUILDLITE_H

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;
struct sqlite3_api_routines;

/*
** libguildlite.a only. Registers with the SQLite that the program is linked with, which must be one
** without SQLITE_OMIT_LOAD_EXTENSION. From any thread; again does no harm, and is needed after
** sqlite3_shutdown() and sqlite3_reset_auto_extension(). Connections that are open already stay as
** they are: guildlite does not see what they do but by watching the file.
**
** SQLITE_OK, or a code with *error_message set (error_message may be NULL), to be freed with
** sqlite3_free(): a SQLite that is too old or without threads, a GUILDLITE_ variable that says
** nothing sensible, no memory. Nothing is registered then.
*/
int guildlite_register(char** error_message);

/*
** What SQLite calls when guildlite.so is loaded ("SELECT load_extension('./guildlite')",
** sqlite3_load_extension(), db.loadExtension()); the name is derived from the file's. Also adopts
** `db`. SQLITE_OK_LOAD_PERMANENTLY, so it is no entry for sqlite3_auto_extension().
*/
int sqlite3_guildlite_init(struct sqlite3* db, char** error_message,
                           const struct sqlite3_api_routines* api);
/* guildlite.so only: the name SQLite tries first, so that a renamed file loads too. */
int sqlite3_extension_init(struct sqlite3* db, char** error_message,
                           const struct sqlite3_api_routines* api);

#ifdef __cplusplus
}
#endif

#endif
