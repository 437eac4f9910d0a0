"""The live page: `decnet-reaper web`. It reads through the repository, and acts by the client alone.

==============  =====================================================================
`selection`     which rows an address asks for
`watcher`       what goes on now, looked at once a second for all who watch
`overview`      the page of the fleet: whole at first, then what has changed
`story`         the page of a row
`actions`       cancel, retry, teardown: who may, and that it is told
`app`           addresses and headers
`server`        the daemon
`static/`       the page itself: no build step, nothing from elsewhere
==============  =====================================================================
"""
