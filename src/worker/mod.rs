//! Runs claimed task instances: render, run with a timeout, report.
