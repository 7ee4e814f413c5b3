//! The wire protocol of signaling: messages, limits, error and close codes.
