// node:sqlite, the SQLite inside Node itself: load, write, sync, restore, the environment, errors.
'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const { DatabaseSync } = require('node:sqlite');
const { guildlite, POSITION, scratch, dump, runChild, assertEndedWell } =
  require('../node/support');

function open(t, file) {
  const db = new DatabaseSync(file, { allowExtension: true });
  t.after(() => db.isOpen && db.close());
  guildlite.load(db);
  return db;
}

// One value of one row.
function value(db, sql, ...values) {
  return Object.values(db.prepare(sql).get(...values))[0];
}

function fill(db, rows) {
  db.exec('create table if not exists notes(id integer primary key, text)');
  const insert = db.prepare('insert into notes(text) values (?)');
  db.exec('begin');
  for (let i = 0; i < rows; i++) insert.run(`note ${i}`);
  db.exec('commit');
}

test('a database is replicated and restored', (t) => {
  const at = scratch(t);
  const db = open(t, at.file('app.db'));
  assert.match(value(db, 'select guildlite_version()'), /^guildlite \d/);
  assert.match(value(db, 'select replication_start(?)', at.url()), POSITION);
  fill(db, 3000);
  db.exec('update notes set text = upper(text) where id % 7 = 0');
  db.exec('vacuum');
  const position = value(db, 'select replication_sync()');
  assert.match(position, POSITION);
  assert.equal(value(db, 'select replication_wait(?, 0)', position), 1);
  assert.equal(value(db, 'select snapshot_restore(?, ?)', at.file('copy.db'), at.url()), position);
  assert.equal(dump(at.file('copy.db')), dump(at.file('app.db')));
  const row = db.prepare('select state, pending, lag_ms from replication_status').get();
  assert.deepEqual({ ...row }, { state: 'replicating', pending: 0, lag_ms: 0 });
});

test('closing flushes, and the next load resumes', (t) => {
  const at = scratch(t);
  const first = open(t, at.file('app.db'));
  value(first, 'select replication_start(?)', at.url());
  fill(first, 400);
  first.close();
  const second = open(t, at.file('app.db'));
  fill(second, 100);
  const position = value(second, 'select replication_sync()');
  assert.equal(value(second, 'select snapshot_restore(?)', at.file('copy.db')), position);
  assert.equal(dump(at.file('copy.db')), dump(at.file('app.db')));
});

test('the environment alone replicates, and restores a missing file', (t) => {
  const at = scratch(t);
  const environment = {
    GUILDLITE_URL: `file://${at.folder}/store-{name}`, GUILDLITE_MATCH: `${at.folder}/*.sqlite3`,
  };
  const program = `
    const { DatabaseSync } = require('node:sqlite');
    const loader = new DatabaseSync(':memory:', { allowExtension: true });
    loader.loadExtension(${JSON.stringify(guildlite.getLoadablePath())});
    const db = new DatabaseSync(process.argv[1]);
    db.exec('create table if not exists notes(id integer primary key, text)');
    db.exec("insert into notes(text) values ('by the environment')");
    db.prepare('select replication_sync()').get();
    console.log(db.prepare('select count(*) as n from notes').get().n);
    if (process.argv[2] === 'exit') process.exit(0);
    db.close();`;
  const file = at.file('bot.sqlite3');
  const run = (end) => {
    const result = spawnSync(process.execPath, ['-e', program, file, end], {
      encoding: 'utf8', timeout: 60000, env: { ...process.env, ...environment },
    });
    assertEndedWell({ code: result.status, signal: result.signal, out: result.stdout,
      err: result.stderr });
    return result.stdout.trim();
  };
  assert.equal(run('close'), '1');
  for (const name of fs.readdirSync(at.folder)) {
    if (name.startsWith('bot.sqlite3')) fs.rmSync(at.file(name), { recursive: true });
  }
  assert.equal(run('exit'), '2');
  assert.equal(run('close'), '3');
});

test('errors keep their tag and their code', (t) => {
  const at = scratch(t);
  const db = open(t, at.file('app.db'));
  const fails = (sql, code, tag) => assert.throws(() => db.prepare(sql).get(), (error) => {
    assert.equal(error.code, 'ERR_SQLITE_ERROR');
    assert.equal(error.errcode & 0xff, code, error.message);
    assert.match(error.message, new RegExp(`^${tag}: `));
    return true;
  });
  fails("select replication_start('s3:/nowhere')", 1, 'BAD_URL');
  fails(`select snapshot_restore('${at.file('x.db')}', '${at.url('none')}')`, 12, 'NO_BACKUP');
  fails(`select snapshot_restore('${at.file('app.db')}', '${at.url()}')`, 14, 'EXISTS');
  db.exec('begin');
  fails('select replication_sync()', 21, 'IN_TRANSACTION');
  db.exec('rollback');
});

test('better-sqlite3 beside it in one process is told, not mixed up', (t) => {
  const at = scratch(t);
  const result = runChild((require, file) => {
    const { DatabaseSync } = require('node:sqlite');
    const { getLoadablePath } = require(process.env.GUILDLITE_PACKAGE);
    const first = new Database(file);
    load(first);
    const second = new DatabaseSync(':memory:', { allowExtension: true });
    try {
      second.loadExtension(getLoadablePath());
    } catch (error) {
      console.log(error.message);
    }
    first.close();
    second.close();
  }, [at.file('app.db')], { GUILDLITE_PACKAGE: require.resolve('../../../ext/node') });
  assertEndedWell(result);
  assert.match(result.out, /two SQLite libraries/);
});
