"""Pure building blocks: no I/O, no asyncio, no drivers. Everything here can be tested with values alone."""
