// Linked into SQLite's testfixture as its SQLITE_EXTRA_INIT: after each sqlite3_initialize() it
// loads the extensions that SUITE_LOAD names, separated by ':', as a host program would. Without
// that variable the program is SQLite's own, so that the same binary is the yardstick.

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int guildlite_suite_init(const char *unused) {
  (void)unused;
  const char *list = getenv("SUITE_LOAD");
  if (!list || !*list) return SQLITE_OK;
  sqlite3 *db = NULL;
  int rc = sqlite3_open(":memory:", &db);
  if (rc == SQLITE_OK) rc = sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
  while (rc == SQLITE_OK && *list) {
    char path[4096];
    const size_t length = strcspn(list, ":");
    snprintf(path, sizeof path, "%.*s", (int)length, list);
    char *error = NULL;
    rc = sqlite3_load_extension(db, path, NULL, &error);
    if (rc != SQLITE_OK) fprintf(stderr, "SUITE_LOAD: %s: %s\n", path, error ? error : "?");
    sqlite3_free(error);
    list += length + (list[length] == ':');
  }
  sqlite3_close(db);
  return rc;
}
