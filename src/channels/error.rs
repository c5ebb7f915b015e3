//! Why something was not done, by what the caller can do about it.

use super::store::CapacityError;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was done: try again later.
    #[error("{0}")]
    Unavailable(String),
    /// Nothing was done: the limit of channels is reached.
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    /// It was done, or will be, or not: whoever does it once more may do it twice.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be done: give a text, or say that it is none.
    #[error("the message is not UTF-8, so it cannot be text")]
    NotText,
}

impl Error {
    pub fn unavailable(why: impl ToString) -> Error {
        Error::Unavailable(why.to_string())
    }
}
