#[cfg(feature = "data")]
mod publish;
