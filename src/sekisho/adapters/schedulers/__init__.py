"""How a site starts a command, watches it and stops it. The port is `sekisho.site.scheduler`."""
