//! Descriptors to and from Python's own ways of passing them, and Python at the broker's end.
