"""The trainers of the shipped example. They import nothing from `orchestrator`: yours need not either."""
