// Where guildlite.so is, and loading it into a connection. Works with better-sqlite3 and with
// anything else whose connection has a loadExtension(path).
'use strict';

const fs = require('node:fs');
const path = require('node:path');

function getLoadablePath() {
  const places = [
    process.env.GUILDLITE_MODULE,
    path.join(__dirname, 'guildlite.so'),
    path.join(__dirname, '..', '..', 'build', 'guildlite.so'),
  ].filter(Boolean).map((place) => path.resolve(place));
  const found = places.find((place) => fs.existsSync(place));
  if (!found) throw new Error(`guildlite.so is in none of: ${places.join(', ')}`);
  return found;
}

function load(db) {
  db.loadExtension(getLoadablePath());
}

module.exports = { getLoadablePath, load };
