//! Drives runs: collects what happened, steps, commits, hands claims to the worker.
