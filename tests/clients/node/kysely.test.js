// kysely on top, unchanged: migrations, transactions, a query mix like a moderation bot's.
'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const { Kysely, Migrator, SqliteDialect, sql } = require('kysely');
const { Database, guildlite, POSITION, scratch, value, assertRestores } = require('./support');

const MIGRATIONS = {
  '001_guilds': {
    up: (db) => db.schema.createTable('guilds')
      .addColumn('id', 'text', (c) => c.primaryKey())
      .addColumn('name', 'text', (c) => c.notNull())
      .execute(),
    down: (db) => db.schema.dropTable('guilds').execute(),
  },
  '002_infractions': {
    up: async (db) => {
      await db.schema.createTable('infractions')
        .addColumn('id', 'integer', (c) => c.primaryKey().autoIncrement())
        .addColumn('guild_id', 'text', (c) => c.notNull().references('guilds.id'))
        .addColumn('user_id', 'text', (c) => c.notNull())
        .addColumn('reason', 'text')
        .execute();
      await db.schema.createIndex('infractions_user').on('infractions')
        .columns(['guild_id', 'user_id']).execute();
    },
    down: (db) => db.schema.dropTable('infractions').execute(),
  },
  '003_expiry': {
    up: (db) => db.schema.alterTable('infractions').addColumn('expires_at', 'integer').execute(),
    down: (db) => db.schema.alterTable('infractions').dropColumn('expires_at').execute(),
  },
};

function open(t, file, url) {
  const database = new Database(file);
  guildlite.load(database);
  database.prepare('select replication_start(?)').get(url);
  const db = new Kysely({ dialect: new SqliteDialect({ database }) });
  t.after(() => db.destroy());
  const migrator = new Migrator({ db, provider: { getMigrations: async () => MIGRATIONS } });
  return { database, db, migrator };
}

async function migrate(step) {
  const { error, results } = await step;
  assert.equal(error, undefined);
  assert.ok(results.every((result) => result.status === 'Success'));
}

test('migrations up and down, then up again, are restored', async (t) => {
  const at = scratch(t);
  const { database, migrator } = open(t, at.file('app.db'), at.url());
  await migrate(migrator.migrateToLatest());
  assertRestores(database, at.file('app.db'), at.url(), at.file('up.db'));
  await migrate(migrator.migrateDown());
  assertRestores(database, at.file('app.db'), at.url(), at.file('down.db'));
  await migrate(migrator.migrateToLatest());
  assertRestores(database, at.file('app.db'), at.url(), at.file('again.db'));
});

test('queries and transactions of a bot are restored, rolled back ones are not', async (t) => {
  const at = scratch(t);
  const { database, db, migrator } = open(t, at.file('app.db'), at.url());
  await migrate(migrator.migrateToLatest());
  const guilds = Array.from({ length: 20 }, (_, i) => ({ id: `${41771983423143937n + BigInt(i)}`,
    name: `guild ${i}` }));
  await db.insertInto('guilds').values(guilds).execute();
  for (const guild of guilds) {
    await db.transaction().execute(async (trx) => {
      for (let i = 0; i < 10; i++) {
        await trx.insertInto('infractions').values({ guild_id: guild.id, user_id: `${i}`,
          reason: `rule ${i % 4}` }).execute();
      }
      await trx.updateTable('infractions').set({ expires_at: 1700000000 })
        .where('guild_id', '=', guild.id).where('user_id', '=', '3').execute();
    });
  }
  await assert.rejects(db.transaction().execute(async (trx) => {
    await trx.deleteFrom('infractions').execute();
    await trx.insertInto('infractions').values({ guild_id: null, user_id: '1' }).execute();
  }), /NOT NULL/);
  await db.deleteFrom('infractions').where('user_id', '=', '7').execute();
  await db.insertInto('guilds').values({ id: guilds[0].id, name: 'renamed' })
    .onConflict((c) => c.column('id').doUpdateSet({ name: 'renamed' })).execute();
  assertRestores(database, at.file('app.db'), at.url(), at.file('copy.db'));
  const { count } = await db.selectFrom('infractions').select((e) => e.fn.countAll().as('count'))
    .executeTakeFirstOrThrow();
  assert.equal(count, 180);
});

test('a reply can wait for its own write through kysely', async (t) => {
  const at = scratch(t);
  const { database, db, migrator } = open(t, at.file('app.db'), at.url());
  await migrate(migrator.migrateToLatest());
  await db.insertInto('guilds').values({ id: '1', name: 'one' }).execute();
  const { rows: [{ position }] } = await sql`select replication_position() as position`.execute(db);
  assert.match(position, POSITION);
  const { rows: [{ done }] } = await sql`select replication_wait(${position}, ${20000}) as done`
    .execute(db);
  assert.equal(done, 1);
  value(database, 'select snapshot_restore(?)', at.file('copy.db'));
  const copy = new Database(at.file('copy.db'), { readonly: true });
  t.after(() => copy.close());
  assert.equal(value(copy, 'select name from guilds'), 'one');
});
