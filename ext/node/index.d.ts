// Types of index.js and index.mjs.

/** Anything that loads SQLite extensions: a better-sqlite3 Database, for one. */
interface Connection {
  loadExtension(file: string, entrypoint?: string): unknown;
}

/**
 * Absolute path of guildlite.so: GUILDLITE_MODULE's, the one beside this file, or the tree's build.
 * Throws if there is none.
 */
export declare function getLoadablePath(): string;

/** Loads guildlite into this connection. Doing it again is harmless. */
export declare function load(db: Connection): void;
