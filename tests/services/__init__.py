"""Servers that the tests start, stop, freeze and kill: one file each, from Debian's packages."""
