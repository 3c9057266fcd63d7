"""Whether work may start now, on this target. Pure: windows are arithmetic, and `decide()` judges values that a
controller has collected; nothing here reads a clock, a server or the API."""
