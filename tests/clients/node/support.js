// What the tests here share: a scratch folder each, a stock look at a database, child programs.
'use strict';

const assert = require('node:assert/strict');
const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const Database = require('better-sqlite3');
const guildlite = require('../../../ext/node');

// A folder that goes with the test, and the usual names in it.
function scratch(t) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'guildlite-node-'));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  return {
    folder,
    file: (name) => path.join(folder, name),
    url: (name = 'store') => 'file://' + path.join(folder, name),
  };
}

// Opens, loads and starts: what the two-minute tour does.
function replicated(t, file, url) {
  const db = new Database(file);
  t.after(() => db.close());
  guildlite.load(db);
  db.prepare('select replication_start(?)').get(url);
  return db;
}

// One value of one row.
function value(db, sql, ...values) {
  return db.prepare(sql).pluck().get(...values);
}

// The whole content as SQL, by the stock shell in a process of its own.
function dump(file) {
  return execFileSync('sqlite3', [file, '.dump'], { encoding: 'utf8', maxBuffer: 1 << 28 });
}

// Ships what is committed, restores it beside the original and proves the two equal.
function assertRestores(db, file, url, copy) {
  value(db, 'select replication_sync()');
  const position = value(db, 'select snapshot_restore(?, ?)', copy, url);
  assert.match(position, POSITION);
  const intact = execFileSync('sqlite3', [copy, 'pragma integrity_check'], { encoding: 'utf8' });
  assert.equal(intact.trim(), 'ok');
  assert.equal(dump(copy), dump(file));
}

// Asserts that `action` throws with this SQLite code and this tag opening the message.
function assertFails(action, code, tag) {
  assert.throws(action, (error) => {
    assert.equal(error.constructor.name, 'SqliteError', String(error));
    assert.match(error.message, new RegExp(`^${tag}\\b`));
    assert.ok(error.code === code || error.code.startsWith(code + '_'),
      `${error.code}, not ${code}: ${error.message}`);
    return true;
  });
}

// Runs `program(require, ...values)` in a Node of its own. It sees Database and load as globals.
function runChild(program, values, environment = {}) {
  const source = `
    const Database = require('better-sqlite3');
    const { load } = require(${JSON.stringify(path.resolve(__dirname, '../../../ext/node'))});
    (${program})(require, ...${JSON.stringify(values)});`;
  const result = spawnSync(process.execPath, ['-e', source], {
    encoding: 'utf8', timeout: 60000, env: { ...process.env, ...environment },
  });
  return { code: result.status, signal: result.signal, out: result.stdout, err: result.stderr };
}

function assertEndedWell(result) {
  assert.deepEqual({ code: result.code, signal: result.signal }, { code: 0, signal: null },
    result.out + result.err);
}

const POSITION = /^[0-9a-f]{16}-[0-9a-f]{8}-[0-9a-f]{16}-[0-9a-f]{8}$/;

module.exports = {
  Database, guildlite, POSITION, scratch, replicated, value, dump, assertRestores, assertFails,
  runChild, assertEndedWell,
};
