// How much memory replication takes: the resident set of a Node process with better-sqlite3 whose
// database of 1 GiB is replicated, less that of the same without guildlite.
//
//   NODE_PATH=$(tests/clients/node/install) node --expose-gc tests/bench/memory.js [url]
//
// Without a url into a directory beside the database. MIB sets the size, SECONDS how long is
// written (one transaction of three rows every 5 ms). At rest: five seconds after all is in the
// store. While writing: the highest of all samples, ten a second; "first copy": the same while that
// is made. Everything is below $TMPDIR, and goes when it ends.
'use strict';

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const Database = require('better-sqlite3');

const MIB = Number(process.env.MIB || 1024);
const SECONDS = Number(process.env.SECONDS || 30);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// In KiB. Anonymous is what nobody shares: heap and stacks.
function resident() {
  const text = fs.readFileSync('/proc/self/smaps_rollup', 'latin1');
  const of = (name) => Number(new RegExp(`^${name}: +(\\d+) kB`, 'm').exec(text)[1]);
  return { rss: of('Rss'), anonymous: of('Anonymous') };
}

class Highest {
  constructor() {
    this.rss = this.anonymous = 0;
    this.timer = setInterval(() => this.look(), 100);
  }
  look() {
    const now = resident();
    this.rss = Math.max(this.rss, now.rss);
    this.anonymous = Math.max(this.anonymous, now.anonymous);
  }
  end() {
    clearInterval(this.timer);
    this.look();
    return { rss: this.rss, anonymous: this.anonymous };
  }
}

function fill(file) {
  const db = new Database(file);
  db.pragma('journal_mode = wal');
  db.exec('create table messages(id integer primary key, guild text, author text, body text)');
  const insert = db.prepare(
    `insert into messages(guild, author, body) with recursive n(i) as
     (select 1 union all select i + 1 from n where i < 50000)
     select '8138478876571' || (i % 900), '1970384394833' || (abs(random()) % 50000),
     hex(randomblob(80)) || ' welcome back, please read the rules again' from n`);
  while (fs.statSync(file).size < MIB * 1024 * 1024) {
    insert.run();
    db.pragma('wal_checkpoint(truncate)');
  }
  db.close();
}

async function measure(file, url) {
  const db = new Database(file);
  const result = {};
  let highest = new Highest();
  const value = (sql, ...values) => db.prepare(sql).pluck().get(...values);
  if (url) {
    require('../../ext/node').load(db);
    value('select replication_start(?)', url);
    // Not one long call: the samples are taken by this thread.
    while (value('select replication_wait(replication_position(), 0)') !== 1) await pause(100);
  }
  result.copy = highest.end();
  for (let i = 0; i < 3; i++) {
    global.gc();
    await pause(1000);
  }
  await pause(2000);
  result.rest = resident();
  const insert = db.prepare("insert into messages(guild, author, body) values ('1', '2', ?)");
  const update = db.prepare("update messages set body = body || '.' where id = ?");
  highest = new Highest();
  const rows = value('select max(id) from messages');
  for (let i = 0; i < SECONDS * 200; i++) {
    db.transaction(() => {
      insert.run(`message ${i}`);
      update.run(1 + ((i * 7919) % rows));
      update.run(1 + ((i * 104729) % rows));
    })();
    await pause(5);
  }
  result.writing = highest.end();
  db.close();
  return result;
}

async function main() {
  if (process.argv[2] === '--measure') {
    console.log(JSON.stringify(await measure(process.argv[3], process.argv[4])));
    return;
  }
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'guildlite-memory-'));
  try {
    const url = process.argv[2] || `file://${folder}/store`;
    const file = path.join(folder, 'app.db');
    fill(file);
    const run = (...values) => {
      const child = spawnSync(process.execPath, ['--expose-gc', __filename, '--measure', ...values],
        { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
      if (child.status !== 0) throw new Error(`exit code ${child.status}, ${child.signal}`);
      return JSON.parse(child.stdout);
    };
    const without = run(file);
    const replicated = run(file, url);
    console.log(`${fs.statSync(file).size >> 20} MiB, MiB of memory`.padEnd(28) +
      'without   with   more   more anonymous');
    for (const [name, what] of [['first copy', 'copy'], ['at rest', 'rest'],
      ['while writing', 'writing']]) {
      const mib = (kib) => (kib / 1024).toFixed(1).padStart(7);
      const a = without[what];
      const b = replicated[what];
      console.log(name.padEnd(28) + mib(a.rss) + mib(b.rss) + mib(b.rss - a.rss) +
        mib(b.anonymous - a.anonymous));
    }
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

main();
