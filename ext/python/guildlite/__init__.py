"""Loads the guildlite extension into a connection of Python's own sqlite3 module.

    import sqlite3, guildlite
    db = sqlite3.connect("app.db")
    guildlite.load(db)
    db.execute("select replication_start('file:///var/backups/app')")
"""
import os

__all__ = ["load", "loadable_path"]


def loadable_path():
    """The guildlite.so in use: GUILDLITE_MODULE, the one beside this file, or the tree's build."""
    here = os.path.dirname(os.path.abspath(__file__))
    tree = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    places = [os.environ.get("GUILDLITE_MODULE"), os.path.join(here, "guildlite.so"),
              os.path.join(tree, "build", "guildlite.so")]
    places = [os.path.abspath(place) for place in places if place]
    for place in places:
        if os.path.isfile(place):
            return place
    raise FileNotFoundError("guildlite.so is in none of: " + ", ".join(places))


def load(connection):
    """Loads guildlite; extension loading is on for that one call only."""
    connection.enable_load_extension(True)
    try:
        connection.load_extension(loadable_path())
    finally:
        connection.enable_load_extension(False)
