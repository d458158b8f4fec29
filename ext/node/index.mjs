// The same two functions for import; one implementation, in index.js.
import guildlite from './index.js';

export const { getLoadablePath, load } = guildlite;
