// The life of a Node process around the extension: exit, kill, restart, workers, the environment.
'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { Worker } = require('node:worker_threads');
const { Database, guildlite, scratch, replicated, value, dump, assertRestores, runChild,
  assertEndedWell } = require('./support');

// Restores by a process that never saw the original, and counts rows of a table.
function restoredCount(t, at, url, table = 'notes') {
  const copy = at.file(`restored-${fs.readdirSync(at.folder).length}.db`);
  const loader = new Database(':memory:');
  guildlite.load(loader);
  value(loader, 'select snapshot_restore(?, ?)', copy, url);
  loader.close();
  const db = new Database(copy, { readonly: true });
  t.after(() => db.close());
  assert.equal(db.pragma('integrity_check', { simple: true }), 'ok');
  return value(db, `select count(*) from ${table}`);
}

function writeAndEnd(require, file, url, rows, end) {
  const db = new Database(file);
  load(db);
  db.prepare('select replication_start(?)').get(url);
  db.exec('create table if not exists notes(id integer primary key, text)');
  const insert = db.prepare('insert into notes(text) values (?)');
  for (let i = 0; i < rows; i++) insert.run(`note ${i}`);
  if (end === 'close') db.close();
  if (end === 'exit') process.exit(0);
  if (end === 'throw') throw new Error('unhandled on purpose');
  if (end === 'kill') process.kill(process.pid, 'SIGKILL');
}

for (const end of ['close', 'exit', 'return']) {
  test(`a process that ends by ${end} has shipped all of it and does not crash`, (t) => {
    const at = scratch(t);
    assertEndedWell(runChild(writeAndEnd, [at.file('app.db'), at.url(), 500, end]));
    assert.equal(restoredCount(t, at, at.url()), 500);
  });
}

test('an uncaught exception ends the process as it would without us', (t) => {
  const at = scratch(t);
  const result = runChild(writeAndEnd, [at.file('app.db'), at.url(), 50, 'throw']);
  assert.equal(result.code, 1, result.err);
  assert.match(result.err, /unhandled on purpose/);
  assert.equal(restoredCount(t, at, at.url()), 50);
});

test('after kill -9 a plain load resumes and ships what was left', (t) => {
  const at = scratch(t);
  const killed = runChild(writeAndEnd, [at.file('app.db'), at.url(), 700, 'kill']);
  assert.equal(killed.signal, 'SIGKILL');
  const db = new Database(at.file('app.db'));
  t.after(() => db.close());
  guildlite.load(db);
  assert.equal(value(db, 'select count(*) from notes'), 700);
  assertRestores(db, at.file('app.db'), at.url(), at.file('copy.db'));
});

test('after a restart a plain load resumes under the same url and options', (t) => {
  const at = scratch(t);
  assertEndedWell(runChild(writeAndEnd, [at.file('app.db'), at.url(), 10, 'close']));
  const child = runChild((require, file) => {
    const db = new Database(file);
    load(db);
    db.prepare("insert into notes(text) values ('resumed')").run();
    db.prepare('select replication_sync()').get();
    console.log(db.prepare('select url from replication_status').pluck().get());
    db.close();
  }, [at.file('app.db')]);
  assertEndedWell(child);
  assert.equal(child.out.trim(), at.url());
  assert.equal(restoredCount(t, at, at.url()), 11);
});

test('replication_stop forgets the url: the next load does not resume', (t) => {
  const at = scratch(t);
  const db = replicated(t, at.file('app.db'), at.url());
  db.exec('create table notes(id integer primary key, text)');
  value(db, 'select replication_stop()');
  assert.throws(() => value(db, 'select replication_sync()'), /NOT_REPLICATED/);
  db.exec("insert into notes(text) values ('not shipped')");
  db.close();
  const again = new Database(at.file('app.db'));
  t.after(() => again.close());
  guildlite.load(again);
  assert.throws(() => value(again, 'select replication_sync()'), /NOT_REPLICATED/);
  assert.equal(restoredCount(t, at, at.url()), 0);
});

test('a worker thread loads it a second time and writes the same database', async (t) => {
  const at = scratch(t);
  const db = replicated(t, at.file('app.db'), at.url());
  db.exec('create table notes(id integer primary key, text)');
  const source = `
    const { workerData, parentPort } = require('node:worker_threads');
    const Database = require(workerData.sqlite);
    const db = new Database(workerData.file);
    db.loadExtension(workerData.module);
    db.pragma('busy_timeout = 20000');
    const insert = db.prepare('insert into notes(text) values (?)');
    for (let i = 0; i < 200; i++) insert.run('worker ' + i);
    const position = db.prepare('select replication_position()').pluck().get();
    const done = db.prepare('select replication_wait(?, 20000)').pluck().get(position);
    db.close();
    parentPort.postMessage(done);`;
  const workers = [1, 2].map(() => new Promise((resolve, reject) => {
    const worker = new Worker(source, { eval: true, workerData: { file: at.file('app.db'),
      module: guildlite.getLoadablePath(), sqlite: require.resolve('better-sqlite3') } });
    worker.once('message', resolve);
    worker.once('error', reject);
  }));
  db.pragma('busy_timeout = 20000');
  for (let i = 0; i < 50; i++) {
    db.prepare('insert into notes(text) values (?)').run(`main ${i}`);
    await new Promise(setImmediate);
  }
  assert.deepEqual(await Promise.all(workers), [1, 1]);
  assert.equal(value(db, 'select count(*) from notes'), 450);
  assertRestores(db, at.file('app.db'), at.url(), at.file('copy.db'));
});

test('GUILDLITE_URL with GUILDLITE_MATCH replicates what the process opens', (t) => {
  const at = scratch(t);
  fs.mkdirSync(at.file('stores'));
  const child = runChild((require, folder) => {
    const loader = new Database(':memory:');
    load(loader);
    for (const name of ['red', 'blue']) {
      const db = new Database(`${folder}/${name}.sqlite3`);
      db.exec('create table notes(id integer primary key, text)');
      db.prepare('insert into notes(text) values (?)').run(name);
      db.prepare('select replication_sync()').get();
      db.close();
    }
    const other = new Database(`${folder}/unmatched.db`);
    other.exec('create table notes(id integer primary key, text)');
    other.close();
  }, [at.folder], {
    GUILDLITE_URL: `${at.url('stores')}/{name}`,
    GUILDLITE_MATCH: `${at.folder}/*.sqlite3`,
  });
  assertEndedWell(child);
  const stores = fs.readdirSync(at.file('stores')).sort();
  assert.equal(stores.length, 2);
  for (const store of stores) {
    assert.match(store, /^(red|blue)/);
    assert.equal(restoredCount(t, at, `${at.url('stores')}/${store}`), 1);
  }
  assert.ok(!fs.existsSync(at.file('unmatched.db-guildlite')));
});

// What a container runs: the one connection there is loads, and nothing else speaks of backups.
function serve(require, file) {
  const db = new Database(file);
  load(db);
  db.exec('create table if not exists notes(id integer primary key, text)');
  db.prepare('insert into notes(text) values (?)').run(db.pragma('journal_mode', { simple: true }));
  process.on('SIGTERM', () => {
    db.close();
    process.exit(0);
  });
  process.kill(process.pid, 'SIGTERM');
  setInterval(() => {}, 1000);
}

test('a program without a line of SQL about it outlives its disk, pod after pod', (t) => {
  const at = scratch(t);
  const environment = { GUILDLITE_URL: at.url(), GUILDLITE_MATCH: `${at.folder}/disk/*.db` };
  for (let pod = 1; pod <= 3; pod++) {
    fs.mkdirSync(at.file('disk'));
    const child = runChild(serve, [at.file('disk/app.db')], environment);
    assertEndedWell(child);
    assert.equal(child.err.split('\n').filter((line) => line).length, pod === 1 ? 0 : 1, child.err);
    if (pod > 1) assert.match(child.err, / RESTORED /);
    fs.rmSync(at.file('disk'), { recursive: true });
    assert.equal(restoredCount(t, at, at.url()), pod);
  }
});

test('the program of docs/kubernetes.md answers its probes and ships on SIGTERM', (t) => {
  const at = scratch(t);
  const text = fs.readFileSync(path.join(__dirname, '../../../docs/kubernetes.md'), 'utf8');
  const blocks = [...text.matchAll(/```js\n([^]*?)```/g)].map((block) => block[1]);
  assert.equal(blocks.length, 2);
  const probe = `.listen(0, async function () {
    const ask = (path) => fetch('http://127.0.0.1:' + this.address().port + path);
    db.exec('create table notes(id integer primary key)');
    while ((await ask('/ready')).status !== 200) await new Promise(setImmediate);
    const answer = await ask('/live');
    console.log(answer.status, Object.keys(await answer.json()).join());
    db.exec('insert into notes values (1), (2)');
    process.kill(process.pid, 'SIGTERM');
  })`;
  const program = blocks.join('\n').replace(/^import .*$/gm, '')
    .replace('/data/bot.sqlite3', at.file('bot.sqlite3')).replace('.listen(8080)', probe);
  const child = runChild(`(require) => { const http = require('node:http'); ${program} }`, [],
    { GUILDLITE_URL: at.url(), GUILDLITE_MATCH: `${at.folder}/*` });
  assertEndedWell(child);
  assert.equal(child.out.trim(), '200 state,lag_ms');
  assert.equal(restoredCount(t, at, at.url()), 2);
});

test('while the store is away a lost database is not begun anew', (t) => {
  const at = scratch(t);
  fs.mkdirSync(at.file('disk'));
  const environment = { GUILDLITE_URL: at.url('away/app'), GUILDLITE_MATCH: `${at.folder}/disk/*` };
  const child = runChild((require, file) => {
    const db = new Database(file);
    try {
      load(db);
    } catch (error) {
      console.log(error.message);
    }
    try {
      db.exec('create table notes(id integer primary key)');
    } catch (error) {
      console.log(error.code);
    }
  }, [at.file('disk/app.db')], environment);
  assertEndedWell(child);
  assert.match(child.out, /NO_BUCKET/);
  assert.match(child.out, /SQLITE_READONLY/);
  assert.equal(fs.statSync(at.file('disk/app.db')).size, 0);
});

test('a stock process reads and writes beside us and after us', (t) => {
  const { execFileSync } = require('node:child_process');
  const at = scratch(t);
  const file = at.file('app.db');
  const db = replicated(t, file, at.url());
  db.exec('create table notes(id integer primary key, text)');
  execFileSync('sqlite3', [file, "insert into notes(text) values ('stock, beside us')"]);
  assertRestores(db, file, at.url(), at.file('beside.db'));
  db.close();
  execFileSync('sqlite3', [file, "insert into notes(text) values ('stock, without us'); vacuum"]);
  const again = replicated(t, file, at.url());
  assert.equal(value(again, 'select count(*) from notes'), 2);
  assertRestores(again, file, at.url(), at.file('after.db'));
  assert.equal(dump(at.file('after.db')), dump(file));
});
