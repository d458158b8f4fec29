// better-sqlite3, unchanged: load, write, sync, restore, and what it says when something is wrong.
'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const { Database, guildlite, POSITION, scratch, replicated, value, dump, assertRestores,
  assertFails } = require('./support');

const MEMBERS = 'create table members(id text primary key, name text, score integer, note blob)';

function fill(db, rows, from = 0) {
  const insert = db.prepare('insert into members values (?, ?, ?, ?)');
  db.transaction(() => {
    for (let i = from; i < from + rows; i++) {
      insert.run(String(80351110224678912n + BigInt(i)), `member ${i}`, i % 17,
        Buffer.alloc(i % 900, i));
    }
  })();
}

test('the package finds the module, by require and by import', async () => {
  assert.ok(path.isAbsolute(guildlite.getLoadablePath()));
  assert.ok(fs.statSync(guildlite.getLoadablePath()).isFile());
  const imported = await import(pathToFileURL(require.resolve('../../../ext/node/index.mjs')));
  assert.equal(imported.getLoadablePath(), guildlite.getLoadablePath());
  assert.equal(imported.load, guildlite.load);
});

test('a fresh DELETE-mode database is switched to WAL, replicated and restored', (t) => {
  const at = scratch(t);
  const file = at.file('app.db');
  const db = new Database(file);
  t.after(() => db.close());
  assert.equal(db.pragma('journal_mode', { simple: true }), 'delete');
  db.exec(MEMBERS);
  fill(db, 500);
  db.loadExtension(guildlite.getLoadablePath());
  const position = value(db, `select replication_start('${at.url()}')`);
  assert.match(position, POSITION);
  assert.equal(db.pragma('journal_mode', { simple: true }), 'wal');
  fill(db, 500, 500);
  db.prepare('delete from members where score = 3').run();
  assertRestores(db, file, at.url(), at.file('copy.db'));
});

test('transactions, rollback and savepoints arrive as committed', (t) => {
  const at = scratch(t);
  const db = replicated(t, at.file('app.db'), at.url());
  db.exec(MEMBERS);
  fill(db, 200);
  assert.throws(() => db.transaction(() => {
    db.prepare('delete from members').run();
    throw new Error('never mind');
  })(), /never mind/);
  db.exec('begin; savepoint a; update members set score = -1; rollback to a; ' +
          "update members set name = 'x' where score = 5; commit");
  db.transaction(() => {
    db.transaction(() => fill(db, 50, 1000))();
  }).immediate();
  assertRestores(db, at.file('app.db'), at.url(), at.file('copy.db'));
  assert.equal(value(db, 'select count(*) from members'), 250);
});

test('VACUUM, checkpoints and auto_vacuum by the application change nothing', (t) => {
  const at = scratch(t);
  const db = replicated(t, at.file('app.db'), at.url());
  db.exec(MEMBERS);
  fill(db, 2000);
  db.pragma('wal_checkpoint(TRUNCATE)');
  db.prepare('delete from members where score < 12').run();
  db.exec('vacuum');
  fill(db, 100, 5000);
  db.pragma('wal_checkpoint(RESTART)');
  fill(db, 10, 6000);
  assertRestores(db, at.file('app.db'), at.url(), at.file('copy.db'));
});

test('connections opened before and after the load are replicated too', (t) => {
  const at = scratch(t);
  const file = at.file('app.db');
  const before = new Database(file);
  t.after(() => before.close());
  before.pragma('journal_mode = wal');
  before.exec(MEMBERS);
  before.prepare("insert into members values ('1', 'before the load', 0, null)").run();
  const loader = replicated(t, file, at.url());
  before.prepare("insert into members values ('2', 'after the load', 0, null)").run();
  loader.prepare("insert into members values ('3', 'by the loader', 0, null)").run();
  const after = new Database(file);
  t.after(() => after.close());
  after.prepare("insert into members values ('4', 'by a later one', 0, null)").run();
  assertRestores(loader, file, at.url(), at.file('copy.db'));
  assert.equal(value(after, 'select count(*) from members'), 4);
  // auto_extension: the functions are there without another load.
  assert.match(value(after, 'select replication_position()'), POSITION);
});

test('two databases of one process go to two stores', (t) => {
  const at = scratch(t);
  const one = replicated(t, at.file('one.db'), at.url('one'));
  const two = replicated(t, at.file('two.db'), at.url('two'));
  one.exec(MEMBERS);
  two.exec(MEMBERS);
  fill(one, 100);
  fill(two, 300, 100);
  assertRestores(one, at.file('one.db'), at.url('one'), at.file('one-copy.db'));
  assertRestores(two, at.file('two.db'), at.url('two'), at.file('two-copy.db'));
  assert.notEqual(dump(at.file('one-copy.db')), dump(at.file('two-copy.db')));
});

test('loading twice is harmless', (t) => {
  const at = scratch(t);
  const db = replicated(t, at.file('app.db'), at.url());
  guildlite.load(db);
  const other = new Database(':memory:');
  guildlite.load(other);
  guildlite.load(other);
  other.close();
  db.exec(MEMBERS);
  fill(db, 20);
  assertRestores(db, at.file('app.db'), at.url(), at.file('copy.db'));
});

test('db.backup() works and its target is left alone', async (t) => {
  const at = scratch(t);
  const db = replicated(t, at.file('app.db'), at.url());
  db.exec(MEMBERS);
  fill(db, 3000);
  await db.backup(at.file('backup.db'));
  assert.equal(dump(at.file('backup.db')), dump(at.file('app.db')));
  assert.ok(!fs.existsSync(at.file('backup.db-guildlite')));
  const backup = new Database(at.file('backup.db'));
  t.after(() => backup.close());
  assertFails(() => value(backup, 'select replication_sync()'), 'SQLITE_ERROR', 'NOT_REPLICATED');
  assertRestores(db, at.file('app.db'), at.url(), at.file('copy.db'));
});

test('numbers bound by JavaScript are REAL and taken as the integers they are', (t) => {
  const at = scratch(t);
  const db = new Database(at.file('app.db'));
  t.after(() => db.close());
  guildlite.load(db);
  value(db, 'select replication_start(?, ?)', at.url(), '{"sync_interval_ms": 50.0}');
  db.exec(MEMBERS);
  const position = value(db, 'select replication_position()');
  assert.match(value(db, 'select replication_sync(?)', 20000), POSITION);
  assert.equal(value(db, 'select replication_wait(?, ?)', position, 0), 1);
  assert.equal(value(db, 'select replication_wait(?, ?)', position, 20000), 1);
  const txid = value(db, 'select txid from replication_status');
  const restored = value(db, 'select snapshot_restore(?, ?, ?)', at.file('at.db'), at.url(), txid);
  assert.match(restored, POSITION);
  assertFails(() => value(db, 'select replication_sync(?)', 1.5), 'SQLITE_ERROR', 'BAD_ARGUMENT');
});

test('a position waited for is in the store', (t) => {
  const at = scratch(t);
  const db = replicated(t, at.file('app.db'), at.url());
  db.exec(MEMBERS);
  let last = '';
  for (let i = 0; i < 5; i++) {
    fill(db, 3, i * 3);
    const position = value(db, 'select replication_position()');
    assert.match(position, POSITION);
    assert.ok(position > last, 'positions of one epoch only grow');
    last = position;
    assert.equal(value(db, 'select replication_wait(?, 20000)', position), 1);
    assert.ok(value(db, 'select replication_durable()') >= position);
    const copy = at.file(`copy-${i}.db`);
    value(db, 'select snapshot_restore(?, ?, ?)', copy, at.url(), position);
    const restored = new Database(copy, { readonly: true });
    assert.equal(value(restored, 'select count(*) from members'), 3 * (i + 1));
    restored.close();
  }
});

test('status is one row per database, every number safe in JavaScript', (t) => {
  const at = scratch(t);
  const db = replicated(t, at.file('app.db'), at.url());
  db.exec(MEMBERS);
  fill(db, 10);
  value(db, 'select replication_sync()');
  const rows = db.prepare('select * from replication_status').safeIntegers().all();
  assert.equal(rows.length, 1);
  assert.equal(fs.realpathSync(rows[0].database), fs.realpathSync(at.file('app.db')));
  assert.equal(rows[0].url, at.url());
  assert.equal(rows[0].position, rows[0].durable_position);
  assert.equal(rows[0].lag_ms, 0n);
  assert.equal(rows[0].last_error, null);
  for (const [name, field] of Object.entries(rows[0])) {
    if (typeof field === 'bigint') assert.ok(field >= 0n && field < 2n ** 53n, name);
  }
  const snapshots = db.prepare('select * from snapshot_list').all();
  assert.ok(snapshots.length >= 1);
  assert.match(snapshots[0].position, POSITION);
});

test('labelled snapshots are restore points', (t) => {
  const at = scratch(t);
  const db = replicated(t, at.file('app.db'), at.url());
  db.exec(MEMBERS);
  fill(db, 10);
  value(db, "select snapshot_create('before the raid')");
  db.prepare('delete from members').run();
  value(db, 'select replication_sync()');
  value(db, "select snapshot_restore(?, ?, 'label:before the raid')", at.file('then.db'), at.url());
  const then = new Database(at.file('then.db'), { readonly: true });
  t.after(() => then.close());
  assert.equal(value(then, 'select count(*) from members'), 10);
  assert.match(value(db, 'select snapshot_verify()'), POSITION);
});

test('guild_shard takes ids as TEXT and BigInt and refuses JavaScript numbers', (t) => {
  const db = new Database(':memory:');
  t.after(() => db.close());
  guildlite.load(db);
  const ids = [102860784329052160n, 81384788765712384n, 197038439483310086n, 2n ** 64n - 1n];
  for (const id of ids) {
    for (const shards of [1n, 2n, 16n, 1021n]) {
      const expected = Number((id >> 22n) % shards);
      assert.equal(value(db, 'select guild_shard(?, ?)', String(id), shards), expected);
      assert.equal(value(db, 'select guild_shard(?, ?)', String(id), Number(shards)), expected);
      if (id < 2n ** 63n) assert.equal(value(db, 'select guild_shard(?, ?)', id, shards), expected);
    }
  }
  // What is left of 197038439483310086 once it is a JavaScript number.
  const rounded = Number(ids[2]);
  assert.notEqual(BigInt(rounded), ids[2]);
  assertFails(() => value(db, 'select guild_shard(?, 16)', rounded), 'SQLITE_MISMATCH', 'BAD_ID');
  assertFails(() => value(db, "select guild_shard('not an id', 16)"), 'SQLITE_MISMATCH', 'BAD_ID');
  assertFails(() => value(db, "select guild_shard('', 16)"), 'SQLITE_MISMATCH', 'BAD_ID');
  assertFails(() => value(db, "select guild_shard('1', 0)"), 'SQLITE_ERROR', 'BAD_ARGUMENT');
});

test('errors carry a SQLite code and a tag', (t) => {
  const at = scratch(t);
  const db = new Database(at.file('app.db'));
  t.after(() => db.close());
  guildlite.load(db);
  const fails = (code, tag, sql, ...values) =>
    assertFails(() => value(db, sql, ...values), code, tag);
  fails('SQLITE_ERROR', 'NOT_REPLICATED', 'select replication_sync()');
  fails('SQLITE_ERROR', 'BAD_URL', "select replication_start('ftp://example.org/x')");
  fails('SQLITE_ERROR', 'BAD_URL', "select replication_start('/not/a/url')");
  fails('SQLITE_ERROR', 'BAD_ARGUMENT', 'select replication_start(?, ?)', at.url(), '{"sync": 1}');
  fails('SQLITE_ERROR', 'BAD_ARGUMENT', 'select replication_start(?, ?)', at.url(), 'not json');
  const restore = 'select snapshot_restore(?, ?, ?)';
  fails('SQLITE_NOTFOUND', 'NO_BACKUP', restore, at.file('c.db'), at.url('none'), null);
  value(db, 'select replication_start(?)', at.url());
  db.exec(MEMBERS);
  value(db, 'select replication_sync()');
  fails('SQLITE_CANTOPEN', 'EXISTS', restore, at.file('app.db'), at.url(), null);
  fails('SQLITE_NOTFOUND', 'NO_SUCH_POINT', restore, at.file('c.db'), at.url(), 1000000);
  db.exec('begin; insert into members(id) values (1)');
  fails('SQLITE_MISUSE', 'IN_TRANSACTION', 'select replication_sync()');
  db.exec('rollback');
  assert.deepEqual(fs.readdirSync(at.folder).filter((name) => name.startsWith('c.db') ||
    name.includes('restore')), []);
  const memory = new Database(':memory:');
  t.after(() => memory.close());
  assert.throws(() => value(memory, 'select replication_start(?)', at.url('memory')),
    { name: 'SqliteError', message: /^[A-Z_]+: / });
});
