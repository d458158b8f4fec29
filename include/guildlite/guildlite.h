/*
** The C entry points of guildlite.so, a SQLite loadable extension.
**
** Loading it ("SELECT load_extension('./guildlite')", sqlite3_load_extension(), db.loadExtension())
** registers the VFS "guildlite" as the default, brings the SQL functions and tables to this
*connection
** and to every later one of the process, and adopts this connection. The module stays loaded
** (SQLITE_OK_LOAD_PERMANENTLY). Nothing is replicated until asked for.
**
** Any thread. SQLite 3.32 or later, not compiled with SQLITE_THREADSAFE=0.
*/
#ifndef GUILDLITE_H
#define GUILDLITE_H

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;
struct sqlite3_api_routines;

/* The name SQLite derives from "guildlite.so". */
int sqlite3_guildlite_init(struct sqlite3* db, char** error_message,
                           const struct sqlite3_api_routines* api);
/* The name SQLite tries first, so that a renamed file loads too. */
int sqlite3_extension_init(struct sqlite3* db, char** error_message,
                           const struct sqlite3_api_routines* api);

#ifdef __cplusplus
}
#endif

#endif
