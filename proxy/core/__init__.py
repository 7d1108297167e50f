"""Pure decisions: events in, commands out; no I/O, no clock, no asyncio."""
