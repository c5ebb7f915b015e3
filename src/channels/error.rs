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
    /// What a publisher is told.
    pub fn status(&self) -> u16 {
        match self {
            Error::NotText => 400,
            Error::Unavailable(_) => 503,
            // Gateway Timeout.
            Error::Unknown(_) => 504,
            // Insufficient Storage (RFC 4918 section 11.5).
            Error::Capacity(_) => 507,
        }
    }

    pub fn unavailable(why: impl ToString) -> Error {
        Error::Unavailable(why.to_string())
    }
}
