"""The trainers of the examples. Like any trainer, they need no import from `orchestrator`."""
