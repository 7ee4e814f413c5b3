//! What the clients of the tutorials say and hear.
